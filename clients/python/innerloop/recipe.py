"""The inputs of an adaptation, kept to make it again if the server had to drop it."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from innerloop.checks import name_of, refuse_masked
from innerloop.errors import FieldViolation, InvalidArgumentError
from innerloop.examples import Examples, Names, refuse_not_finite
from innerloop.guard import guarded
from innerloop.labels import name_labels
from innerloop.tensors import Array, encode_tensor
from innerloop.v1 import adaptation_pb2 as pb


@dataclass(frozen=True)
class Recipe:
    """A support set and how to adapt to it.

    Attributes:
        model: name of the model.
        support: encoded examples and their answers.
        options: steps and time to live.
        labels: the caller's own objects by their names on the wire; empty for regression.
        names: what the support examples are called in messages.
    """

    model: str
    support: pb.Support
    options: pb.AdaptOptions
    labels: Mapping[str, Any]
    names: Names


@dataclass(frozen=True)
class Answers:
    """Answers to the support examples: labels (classification), or targets (regression).

    Attributes:
        labels: the name of each example's label; empty for regression.
        originals: the caller's own objects by those names.
        targets: float32 [N, D]; None for classification.
    """

    labels: list[str]
    originals: Mapping[str, Any]
    targets: Array | None = None

    @property
    def names(self) -> Names:
        """The names of the examples in messages."""
        return Names("support example", labels=self.labels)

    def __len__(self) -> int:
        return len(self.labels if self.targets is None else self.targets)


def read_answers(labels: Iterable[Hashable] | None, targets: ArrayLike | None) -> Answers:
    """Read labels or targets; see `Client.adapt`.

    Raises:
        InvalidArgumentError: not exactly one of them is given, or it can't be sent.
    """
    if labels is not None and targets is None:
        return Answers(*name_labels(labels))
    if targets is not None and labels is None:
        return Answers([], {}, _columns(targets))
    raise InvalidArgumentError("give either labels (classification) or targets (regression)")


def make_recipe(
    model: str,
    examples: Examples,
    answers: Answers,
    steps: int | None,
    time_to_live: float | timedelta | None,
    forget_examples: bool,
) -> Recipe:
    """Put a recipe together; see `Client.adapt` for the arguments.

    Raises:
        InvalidArgumentError: there are more or fewer answers than examples, or an option can't be sent.
    """
    support = make_support(examples, answers)
    options = _options(steps, time_to_live, forget_examples)
    return Recipe(name_of("model", model), support, options, answers.originals, examples.names)


def make_support(examples: Examples, answers: Answers) -> pb.Support:
    """Labelled examples as they travel.

    Raises:
        InvalidArgumentError: there are more or fewer answers than examples, or they can't be sent.
    """
    if len(answers) != len(examples):
        kind = "labels" if answers.targets is None else "targets"
        message = f"there are {len(answers)} {kind} for {len(examples)} inputs; give one for each"
        raise InvalidArgumentError(message, violations=[FieldViolation(f"support.{kind}", message)])
    support = pb.Support(inputs=examples.to_message())
    put_answers(support, answers)
    return support


def put_answers(message: pb.Support | pb.Relabelling, answers: Answers) -> None:
    """Write labels or targets into a message."""
    if answers.targets is None:
        message.labels.values.extend(answers.labels)
    else:
        message.targets.CopyFrom(encode_tensor(answers.targets))


def _options(steps: int | None, time_to_live: float | timedelta | None, forget_examples: bool) -> pb.AdaptOptions:
    try:
        options = pb.AdaptOptions(steps=steps, forget_examples=forget_examples)
        if time_to_live is not None:
            lifetime = time_to_live if isinstance(time_to_live, timedelta) else timedelta(seconds=time_to_live)
            options.time_to_live.FromTimedelta(lifetime)
    except Exception as error:
        raise InvalidArgumentError(
            "steps must be a whole number, time_to_live seconds or a timedelta, and forget_examples True or False: "
            f"{error}"
        ) from error
    return options


def _columns(targets: ArrayLike) -> Array:
    """Targets as float32 [N, D]; a flat list is one value per example."""
    with guarded("targets, numbers of which each example has as many,"), np.errstate(over="ignore"):
        refuse_masked(targets, "a target")
        array = np.asarray(targets, dtype=np.float32)
    if array.ndim == 0:
        raise InvalidArgumentError("targets are one per example, in a list; this is a single one")
    refuse_not_finite(array, Names("the target of support example"))
    return array[:, np.newaxis] if array.ndim == 1 else array
