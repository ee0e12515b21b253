"""Makes a run that is ready to train from its recipe."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from innerloop_trainer.data import DataSource
from innerloop_trainer.encoders import read_optional_encoder
from innerloop_trainer.recipes import Recipe
from innerloop_trainer.runs.conduct import USUAL, Conduct
from innerloop_trainer.runs.folder import RunFolder
from innerloop_trainer.runs.prepare import PreparedRun, prepare
from innerloop_trainer.runs.teachers import read_teachers
from innerloop_trainer.teaching import Teachers


@dataclass(frozen=True)
class PreparedRecipe(PreparedRun):
    """A run that a recipe describes, whose training can begin or go on.

    Attributes:
        teachers: models that teach.
        recipe: the recipe with all defaults filled in, which makes the same run again.
    """

    teachers: Teachers
    recipe: Recipe


def prepare_recipe(
    recipe: Recipe,
    folder: RunFolder,
    device: torch.device,
    *,
    resume: bool = False,
    source: DataSource | None = None,
    conduct: Conduct = USUAL,
) -> PreparedRecipe:
    """Read what a recipe names, and make or restore its run. Nothing is written yet.

    Args:
        recipe: recipe of the run.
        folder: folder of the run.
        device: device to train on.
        resume: whether to continue the run that the folder holds.
        source: the data, if it is loaded and encoded already.
        conduct: how the run is carried out.

    Raises:
        ConfigError, DataError: the encoder can't be used.
        BundleError, RunError: a teacher can't be used.
        the errors of `prepare`.
    """
    tokenizer = None if recipe.tokenizer is None else Path(recipe.tokenizer)
    teachers = read_teachers([Path(each) for each in recipe.teacher], device)
    prepared = prepare(
        recipe.training,
        folder,
        device,
        encoder=read_optional_encoder(recipe.encoder, tokenizer),
        init=None if recipe.init is None else Path(recipe.init),
        teachers=teachers,
        resume=resume,
        source=source,
        conduct=conduct,
    )
    training = prepared.training
    completed = replace(recipe, training=replace(training.plan.config, init=None, teacher=None, encoder=None))
    return PreparedRecipe(training, prepared.start, prepared.left_out, teachers, completed)
