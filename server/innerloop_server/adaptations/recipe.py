"""Recipe of an adaptation: with its model, enough to make it again."""

from typing import Self

import msgspec
import numpy as np

from innerloop_server.domain.examples import LabelledExamples
from innerloop_server.domain.tasks import AdaptTask, Array, ExampleIds, SupportSet


class ArrayBytes(msgspec.Struct, frozen=True, array_like=True):
    """An array: NumPy's name of its little-endian type, its shape and its content."""

    dtype: str
    shape: tuple[int, ...]
    content: bytes

    @classmethod
    def of(cls, array: Array) -> Self:
        """The bytes of an array."""
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        return cls(little.dtype.str, array.shape, little.tobytes())

    def array(self) -> Array:
        """The array, which can't be written to."""
        return np.frombuffer(self.content, np.dtype(self.dtype)).reshape(self.shape)


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """A support set as its owner sent it, and how many steps it took. Fields that are added later need defaults.

    Attributes:
        x: raw inputs [S, *input]; behind an encoder these are what the encoder takes.
        y: class indices [S], or targets [S, D].
        ways: number of classes; zero for regression.
        steps: inner steps.
        steps_chosen: whether its owner chose them; another version takes its own number of steps otherwise.
        input_format: of the model's inputs; only a version that takes the same can use them.
        ids: of the examples; None where they are those that the adaptation began with.
    """

    x: ArrayBytes
    y: ArrayBytes
    ways: int
    steps: int
    steps_chosen: bool = True
    input_format: str = ""
    ids: ExampleIds | None = None

    @classmethod
    def of(cls, task: AdaptTask) -> Self:
        """The recipe of a task."""
        support = task.support
        return cls(
            x=ArrayBytes.of(support.x),
            y=ArrayBytes.of(support.y),
            ways=support.ways,
            steps=task.steps,
            steps_chosen=task.steps_chosen,
            input_format=task.model.description.input_format,
            ids=task.ids,
        )

    @property
    def support(self) -> SupportSet:
        """The support set."""
        return SupportSet(self.x.array(), self.y.array(), self.ways)

    def examples(self, classes: tuple[str, ...]) -> LabelledExamples:
        """The examples with their answers as their owner gave them; `classes` are the labels by class index."""
        x, y = self.x.array(), self.y.array()
        ids = self.ids or ExampleIds.first(len(x))
        if not classes:
            return LabelledExamples(x, (), y, ids)
        return LabelledExamples(
            x, tuple(classes[index] for index in y.tolist()), np.zeros((len(x), 0), np.float32), ids
        )

    @property
    def size_bytes(self) -> int:
        """Bytes of its arrays."""
        return len(self.x.content) + len(self.y.content)
