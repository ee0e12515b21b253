"""Splits whose images are augmented whenever they are drawn, and the text that names augmentations."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import torch

from innerloop_learner.augmentations import Augment, named_augmentations
from innerloop_learner.registry import UnknownNameError
from innerloop_learner.settings import SettingsError
from innerloop_learner.tasks import Episodes, Query
from innerloop_trainer.data.derived import DerivedTasks
from innerloop_trainer.data.source import DataError, EpisodeShape, TaskSampler

DRAWINGS, PHOTOGRAPHS = "affine,shift,elastic,stroke", "crop,flip,colour"
"""Usual augmentations of images of one channel, and of images in colour."""


def usual_augmentations(channels: int) -> str:
    """The text that names augmentations for images of so many channels, of which nothing else is known."""
    return DRAWINGS if channels == 1 else PHOTOGRAPHS


def read_augmentations(text: str) -> Augment:
    """The augmentations that a text names: `NAME?strength=number&strength=number`, joined by commas, or `none`.

    >>> augment = read_augmentations("affine?rotation=30,stroke")
    >>> read_augmentations("affine?rotation=much")
    Traceback (most recent call last):
        ...
    innerloop_trainer.data.source.DataError: affine?rotation=much: rotation must be a number, not 'much'

    Raises:
        DataError: there is no such augmentation or strength; the message lists what there is.
    """
    try:
        return Augment([part for _, part in named_augmentations(text)])
    except (UnknownNameError, SettingsError) as error:
        raise DataError(str(error)) from error


class AugmentedTasks(DerivedTasks):
    """A split of images that are augmented whenever they are drawn, those of support sets and queries alike.

    Args:
        tasks: the split as it is.
        augment: augmentations.
    """

    def __init__(self, tasks: TaskSampler, augment: Augment) -> None:
        super().__init__(tasks)
        self._augment = augment

    def sample(self, shape: EpisodeShape, tasks: int, generator: torch.Generator) -> Episodes:
        """See TaskSampler.sample."""
        episodes = self._tasks.sample(shape, tasks, generator)
        support, query = episodes.support, episodes.query
        images = self._augment(torch.cat([support.x, query.x], 1), generator)
        examples = support.x.shape[1]
        return replace(
            episodes,
            support=replace(support, x=images[:, :examples]),
            query=Query(images[:, examples:], query.mask),
        )

    def domains(self, shape: EpisodeShape) -> Sequence[str]:
        """See TaskSampler.domains."""
        return self._tasks.domains(shape)

    def without(self, names: Collection[str]) -> TaskSampler:
        """See TaskSampler.without."""
        return AugmentedTasks(self._tasks.without(names), self._augment)
