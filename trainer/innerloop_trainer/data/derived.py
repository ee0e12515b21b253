"""Splits that change the tasks which another split draws."""

from collections.abc import Mapping, Sequence

from innerloop_trainer.data.class_digests import ClassDigest
from innerloop_trainer.data.source import EpisodeShape, TaskSampler


class DerivedTasks(TaskSampler):
    """A split of the classes of another one, whose tasks it changes.

    Args:
        tasks: the split as it is.
    """

    def __init__(self, tasks: TaskSampler) -> None:
        self.names: Sequence[str] = tasks.names
        self.digests: Mapping[str, ClassDigest] = tasks.digests
        self.labelled = tasks.labelled
        self._tasks = tasks

    @property
    def on_device(self) -> bool:
        """See TaskSampler.on_device."""
        return self._tasks.on_device

    @property
    def ways_anywhere(self) -> int:
        """See TaskSampler.ways_anywhere."""
        return self._tasks.ways_anywhere

    def check(self, shape: EpisodeShape) -> None:
        """See TaskSampler.check."""
        self._tasks.check(shape)
