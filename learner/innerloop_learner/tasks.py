"""Batches of few-shot tasks: what every learner takes and gives.

Every tensor leads with a tasks dimension T. Tasks of different sizes share a batch by padding: `mask` is true where an
example is real, and padding never changes an answer.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

Params = dict[str, Tensor]
"""Meta-learned parameters, a flat mapping of named tensors shared by all tasks."""

TaskState = dict[str, Tensor]
"""The result of adapting to T tasks: a flat mapping of named tensors [T, ...]."""

MANY = 1e9
"""A number larger than the number of examples of any class."""


@dataclass(frozen=True)
class Support:
    """Labelled examples of T tasks.

    Attributes:
        x: inputs [T, S, *input], floating point and already normalised.
        y: class indices [T, S] int64 in `0 .. ways - 1`, or targets [T, S, D] floating point for regression.
        mask: [T, S] bool, true for real examples.
        ways: [T] int64, number of classes of each task (zero for regression).
        max_ways: width W of the logits; at least `Learner.padded_ways` of the largest of `ways` (zero for regression).

    Example:
        One task with two examples of class 0 and one of class 1, and a place of padding:

        >>> x, y = torch.zeros(1, 4, 2), torch.tensor([[0, 0, 1, 0]])
        >>> mask = torch.tensor([[True, True, True, False]])
        >>> support = Support(x, y, mask, ways=torch.tensor([2]), max_ways=2)
        >>> support.class_weights
        tensor([[0.5000, 0.5000, 1.0000, 0.0000]])
    """

    x: Tensor
    y: Tensor
    mask: Tensor
    ways: Tensor
    max_ways: int

    @property
    def tasks(self) -> int:
        """Number of tasks T."""
        return self.x.shape[0]

    def members(self, dtype: torch.dtype) -> Tensor:
        """The class of each example, one-hot [T, S, W]; zero for padding. Classification only."""
        classes = torch.arange(self.max_ways, device=self.y.device)  # one_hot takes no symbolic width
        return ((self.y.unsqueeze(-1) == classes) & self.mask.unsqueeze(-1)).to(dtype)

    @cached_property
    def class_weights(self) -> Tensor:
        """Weights of examples [T, S] that sum to the same in every class of a task; zero for padding.

            w_i = (examples of the smallest class that has any) / (examples of the class of i)

        No example counts for more than one, and where all classes have equally many each counts for one exactly.
        Repeating the examples of one class leaves the weights of all others as they are. Classification only.
        """
        real = self.mask.to(self.x.dtype)
        return equal_weights(self.counts(real.dtype)).gather(1, self.y) * real

    def counts(self, dtype: torch.dtype) -> Tensor:
        """The number of examples of each class, [T, W]. Classification only."""
        real = self.mask.to(dtype)
        return real.new_zeros(self.tasks, self.max_ways).scatter_add(1, self.y, real)

    def shares(self, dtype: torch.dtype, weights: Tensor | None = None) -> Tensor:
        """Each example's share of its class [T, S, W]: `shares.transpose(1, 2) @ features` are class means.

        `weights` [T, S] are those of examples, 1 on average over each class; None if all count the same.
        """
        members = self.members(dtype)
        if weights is not None:
            members = members * weights.unsqueeze(-1)
        return members / members.sum(1, keepdim=True).clamp(min=1)

    def to(self, *args: Any) -> "Support":
        """Copy with floating-point tensors converted and all tensors moved, as `Tensor.to` does."""
        return Support(
            _to(self.x, *args), _to(self.y, *args), _to(self.mask, *args), _to(self.ways, *args), self.max_ways
        )


@dataclass(frozen=True)
class Query:
    """Inputs of T tasks to answer.

    Attributes:
        x: inputs [T, Q, *input], floating point and already normalised.
        mask: [T, Q] bool, true for real queries.
    """

    x: Tensor
    mask: Tensor

    def to(self, *args: Any) -> "Query":
        """Copy with floating-point tensors converted and all tensors moved, as `Tensor.to` does."""
        return Query(_to(self.x, *args), _to(self.mask, *args))


@dataclass(frozen=True)
class Episodes:
    """T sampled tasks with the answers to their queries, for training and evaluation.

    Attributes:
        support: the labelled examples to adapt on.
        query: the inputs to answer.
        targets: the answers, [T, Q] int64 or [T, Q, D] floating point.
        classes: [T, W] int64, which class of the split each label of a task stands for; None for regression.
        domains: [T] int64, which domain all classes of a task are of; None where they may be of several.
    """

    support: Support
    query: Query
    targets: Tensor
    classes: Tensor | None = None
    domains: Tensor | None = None

    def of_tasks(self, tasks: Tensor | slice) -> "Episodes":
        """Some of the tasks, by their numbers, a mask [T] or a slice."""
        support, query = self.support, self.query
        return Episodes(
            Support(support.x[tasks], support.y[tasks], support.mask[tasks], support.ways[tasks], support.max_ways),
            Query(query.x[tasks], query.mask[tasks]),
            self.targets[tasks],
            None if self.classes is None else self.classes[tasks],
            None if self.domains is None else self.domains[tasks],
        )

    def to(self, *args: Any) -> "Episodes":
        """Copy with floating-point tensors converted and all tensors moved, as `Tensor.to` does."""
        numbers = (None if each is None else _to(each, *args) for each in (self.classes, self.domains))
        return Episodes(self.support.to(*args), self.query.to(*args), _to(self.targets, *args), *numbers)


class Adapted(NamedTuple):
    """The result of `Learner.adapt`.

    Attributes:
        state: the task state.
        losses: mean support loss before each inner step [T, steps]; None for methods without steps.
        weights: what each support example counted [T, S], 1 on average over each class, 0 for padding; None if all
            examples of a class counted the same.
    """

    state: TaskState
    losses: Tensor | None
    weights: Tensor | None = None


def equal_weights(counts: Tensor) -> Tensor:
    """What an example of each class counts if all classes count the same, [T, W], from numbers of examples [T, W].

    See `Support.class_weights`.
    """
    # A class without examples must not pass for the smallest.
    smallest = counts.masked_fill(counts == 0, MANY).amin(1, keepdim=True)
    return smallest / counts.clamp(min=1)


def _to(tensor: Tensor, *args: Any) -> Tensor:
    """`tensor.to(*args)`, but integers and masks keep their type."""
    moved = tensor.to(*args)
    return moved if tensor.is_floating_point() else moved.to(tensor.dtype)
