"""The interface of spaces of architectures."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch

from innerloop_learner.registry import Registry

Architecture = tuple[int, ...]
"""The option that is taken in each choice of a space, as its place among the choice's options."""


class Choice(NamedTuple):
    """One thing that is chosen.

    Attributes:
        name: name of the choice.
        options: what there is to choose from, as plain data.
    """

    name: str
    options: Sequence[Any]


class Space(ABC):
    """Architectures to search: a few choices, and the settings of a backbone that choices stand for.

    Attributes:
        backbone: registered name of the backbone.
        choices: all choices; each is made whatever the others are.
        one_cell: whether the choices are the operations on the edges of one cell, in the order of the edges, and all
            blocks that have a cell have this one. Only then can all architectures be mixed in one network (`darts`).
    """

    backbone: ClassVar[str] = "cell"
    choices: Sequence[Choice]
    one_cell: ClassVar[bool] = False

    @abstractmethod
    def settings(self, architecture: Architecture) -> dict[str, Any]:
        """The settings of the backbone that an architecture stands for."""

    @property
    def size(self) -> int:
        """Number of architectures."""
        return math.prod(len(choice.options) for choice in self.choices)

    def draw(self, generator: torch.Generator) -> Architecture:
        """An architecture, each as probable as another."""
        return tuple(draw_below(len(choice.options), generator) for choice in self.choices)

    def described(self, architecture: Architecture) -> dict[str, Any]:
        """The options that are taken, by the names of the choices."""
        taken = zip(self.choices, architecture, strict=True)
        return {choice.name: choice.options[option] for choice, option in taken}

    def architecture(self, described: Mapping[str, Any]) -> Architecture:
        """The architecture that `described` described.

        Raises:
            KeyError, ValueError: the space has other choices or options.
        """
        return tuple(list(choice.options).index(described[choice.name]) for choice in self.choices)


def draw_below(number: int, generator: torch.Generator) -> int:
    """A whole number from 0 to `number` - 1, each as probable as another."""
    return int(torch.randint(number, (), generator=generator))


spaces: Registry[Space] = Registry("space", "innerloop.spaces", "innerloop_trainer.search.spaces")
