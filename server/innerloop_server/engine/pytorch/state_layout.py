"""How a task state lies in memory: its tensors one behind the other, as rows of 32-bit words."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

PAGE_WORDS = 256
"""Words of one page, the unit in which states take memory: 1 KiB."""

WORD_BYTES = 4


@dataclass(frozen=True)
class Field:
    """The place of one tensor in a state.

    Attributes:
        name: in the state.
        shape: without the tasks dimension.
        dtype: as the learner made it.
        start: first word.
        words: how many.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    start: int
    words: int

    @property
    def carrier(self) -> torch.dtype:
        """The type it is kept as: its own, or one of whole words that holds the same values."""
        if self.dtype.itemsize >= WORD_BYTES:
            return self.dtype
        return torch.float32 if self.dtype.is_floating_point else torch.int32

    def of(self, rows: Tensor) -> Tensor:
        """The view of the tensor [T, ...], as its carrier, on rows of states."""
        words = rows[:, self.start : self.start + self.words]
        return words.view(self.carrier).view(len(rows), *self.shape)


Shapes = tuple[tuple[str, tuple[int, ...], torch.dtype], ...]
"""Name, shape without the tasks dimension, and type of a state's tensors."""


PlainShapes = tuple[tuple[str, tuple[int, ...], str], ...]
"""`Shapes` as plain data: types are given by name."""


class StateLayout:
    """The place of every tensor of states of one shape. Two layouts are equal when they are the same object.

    Attributes:
        shapes: of the tensors.
        fields: one per tensor.
        words: from the first word of the first tensor to the last of the last.
        pages: that a state takes, at least one.
    """

    def __init__(self, shapes: Shapes) -> None:
        fields, start = [], 0
        for name, shape, dtype in shapes:
            words = torch.Size(shape).numel() * max(dtype.itemsize // WORD_BYTES, 1)
            fields.append(Field(name, shape, dtype, start, words))
            start += words + words % 2  # types of two words begin at even ones
        self.shapes = shapes
        self.fields = tuple(fields)
        self.words = start
        self.pages = max(-(-start // PAGE_WORDS), 1)

    def pack(self, state: Mapping[str, Tensor]) -> Tensor:
        """The state's tensors [T, ...] as rows [T, pages * PAGE_WORDS] int32; what no tensor fills is zero."""
        first = state[self.fields[0].name]
        rows = torch.zeros(len(first), self.pages * PAGE_WORDS, dtype=torch.int32, device=first.device)
        for field in self.fields:
            field.of(rows).copy_(state[field.name])
        return rows

    def unpack(self, rows: Tensor) -> dict[str, Tensor]:
        """Views of the state's tensors [T, ...] on rows that `pack` made."""
        return {field.name: field.of(rows).to(field.dtype) for field in self.fields}


class StateLayouts:
    """The layouts of one model, so that states of equal shapes share one."""

    def __init__(self) -> None:
        self._by_shapes: dict[Shapes, StateLayout] = {}

    def of(self, state: Mapping[str, Tensor]) -> StateLayout:
        """The layout of a batch of states; tensors lie in the order of their names, in every process alike."""
        return self.of_shapes(
            tuple((name, tuple(tensor.shape[1:]), tensor.dtype) for name, tensor in sorted(state.items()))
        )

    def of_shapes(self, shapes: Shapes) -> StateLayout:
        """The layout of states of these shapes, always the same object."""
        if shapes not in self._by_shapes:
            self._by_shapes.setdefault(shapes, StateLayout(shapes))  # another thread may have been first
        return self._by_shapes[shapes]


def to_plain(shapes: Shapes) -> PlainShapes:
    """Shapes as plain data."""
    return tuple((name, shape, str(dtype).removeprefix("torch.")) for name, shape, dtype in shapes)


def from_plain(shapes: PlainShapes) -> Shapes:
    """Reverse `to_plain`."""
    return tuple((name, shape, getattr(torch, dtype)) for name, shape, dtype in shapes)
