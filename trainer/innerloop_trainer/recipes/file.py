"""Reads and writes the file of a recipe, in TOML."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from innerloop_learner.disk import replace_file
from innerloop_trainer.config import ConfigError
from innerloop_trainer.recipes.paths import with_absolute_paths
from innerloop_trainer.recipes.recipe import Recipe, check_names, setting_names

EXPECTED = "expected"
"""Name of the tables that say which figures the recipe leads to."""

CARD = "card"
"""Name of the table that says of the model what a model card tells, and training does not need."""


@dataclass(frozen=True)
class RecipeFile:
    """The content of a recipe's file.

    Attributes:
        path: path of the file.
        settings: settings by name, as `make_recipe` takes them; their paths are absolute.
        expected: tables of expected figures, as written.
        card: what the model card shall say, as written.
    """

    path: Path
    settings: Mapping[str, Any]
    expected: list[Any]
    card: Mapping[str, Any]


def read_recipe(path: Path) -> RecipeFile:
    """Read the file of a recipe. Relative paths in it are relative to its folder.

    Raises:
        ConfigError: there is no such file, it is no TOML, or it has settings that recipes don't have.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ConfigError(f"the recipe {path} can't be read: {reason}") from error
    check_names(content, [*setting_names(), EXPECTED, CARD], str(path))
    expected, card = content.pop(EXPECTED, []), content.pop(CARD, {})
    if not isinstance(expected, list) or not isinstance(card, dict):
        raise ConfigError(f"{path}: write figures below [[{EXPECTED}]], and what a card says below [{CARD}]")
    return RecipeFile(path, with_absolute_paths(content, path.resolve().parent), expected, card)


def merged(settings: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with others in their place. Tables such as `set` are merged setting by setting.

    >>> merged({"ways": 5, "set": {"rate": 0.1, "steps": 3}}, {"set": {"rate": 0.4}})
    {'ways': 5, 'set': {'rate': 0.4, 'steps': 3}}
    """
    tables = {
        name: {**settings[name], **value}
        for name, value in over.items()
        if isinstance(value, Mapping) and isinstance(settings.get(name), Mapping)
    }
    return {**settings, **over, **tables}


def write_recipe(path: Path, recipe: Recipe, folder: Path) -> None:
    """Write a recipe whole, so that `read_recipe` and `make_recipe` make the same one of it wherever the file lies.

    Args:
        path: path of the file.
        recipe: the recipe.
        folder: folder that its relative paths are relative to.

    Raises:
        OSError: it can't be written; what was there still is.
    """
    settings = with_absolute_paths(recipe.to_settings(), folder)
    replace_file(path, tomlkit.dumps(settings).encode())
