"""What the file of a recipe says of its model for the model card, and training does not need."""

from dataclasses import dataclass, fields

from innerloop_learner.settings import setting, with_settings
from innerloop_trainer.recipes.file import CARD, RecipeFile
from innerloop_trainer.recipes.recipe import check_names


@dataclass(frozen=True)
class CardTexts:
    """Texts of a model card that neither manifest nor settings hold."""

    licence: str = setting("unknown", "licence of the model, by its SPDX identifier in lower case, as apache-2.0")
    data: str = setting("", "where the data comes from, and its licence")
    use: str = setting("", "what the model is good for")
    limits: str = setting("", "what it should not be used for, and where it errs")


def card_texts(recipe: RecipeFile) -> CardTexts:
    """The texts below `[card]`.

    Raises:
        ConfigError: there is no text of a name.
        SettingsError: a text is none.
    """
    owner = f"{recipe.path}, [{CARD}]"
    check_names(recipe.card, [each.name for each in fields(CardTexts)], owner)
    return with_settings(owner, CardTexts, recipe.card)
