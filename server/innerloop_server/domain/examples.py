"""Labelled examples that can be named one by one, and how labels become class indices."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from innerloop_learner.diagnosis import Diagnosis
from innerloop_server.domain.errors import FieldViolation, InvalidRequestError
from innerloop_server.domain.models import ModelDescription
from innerloop_server.domain.tasks import Array, ExampleIds, SupportSet

MOST_LABEL_BYTES = 2**20
"""Most bytes of the labels of an adaptation's classes together: each Predict answers with all of them, and clients of
gRPC take answers of 4 MiB unless they are told otherwise."""


MOST_DIAGNOSED = 500
"""Most examples that are diagnosed: with 100 tasks, that takes as long as 100 requests of as many examples."""


class NumberedClasses(NamedTuple):
    """Class indices [S] of some labels, and the label of each index."""

    y: NDArray[np.int64]
    classes: tuple[str, ...]


def number_classes(labels: Sequence[str], *, in_order: bool) -> NumberedClasses:
    """Number the classes of some labels.

    Methods that read examples one by one were trained with classes numbered by first appearance. For all others labels
    are sorted: which part of a fixed head a class gets must not depend on the order of the examples.

    Args:
        labels: one per example.
        in_order: whether the order of examples matters to the model.

    Example:
        >>> number_classes(["dog", "cat", "dog"], in_order=False)
        NumberedClasses(y=array([1, 0, 1]), classes=('cat', 'dog'))
        >>> number_classes(["dog", "cat", "dog"], in_order=True).classes
        ('dog', 'cat')
    """
    distinct = dict.fromkeys(labels)
    indices = {label: index for index, label in enumerate(distinct if in_order else sorted(distinct))}
    return NumberedClasses(np.fromiter((indices[label] for label in labels), np.int64, len(labels)), tuple(indices))


def number_more_classes(labels: Sequence[str], known: tuple[str, ...], *, in_order: bool) -> NumberedClasses:
    """Number the classes of some labels where others have numbers already, which they keep.

    Args:
        labels: one per example.
        known: labels that have numbers, by these.
        in_order: whether the order of examples matters to the model.

    Example:
        >>> number_more_classes(["owl", "dog", "bee"], ("dog", "cat"), in_order=False)
        NumberedClasses(y=array([3, 0, 2]), classes=('dog', 'cat', 'bee', 'owl'))
    """
    there = frozenset(known)
    new = number_classes([label for label in labels if label not in there], in_order=in_order).classes
    classes = (*known, *new)
    indices = {label: index for index, label in enumerate(classes)}
    return NumberedClasses(np.fromiter((indices[label] for label in labels), np.int64, len(labels)), classes)


def wrong_labels(classes: Collection[str]) -> str | None:
    """Why an adaptation can't have classes of these labels, as the end of a sentence; None if it can.

    >>> wrong_labels(["a" * 2**19, "b" * 2**19]), wrong_labels(["é" * 2**20])
    (None, 'has labels of 2097152 bytes in all, at most 1048576 are accepted: give classes shorter names')
    """
    size = sum(len(label.encode()) for label in classes)
    if size <= MOST_LABEL_BYTES:
        return None
    return f"has labels of {size} bytes in all, at most {MOST_LABEL_BYTES} are accepted: give classes shorter names"


def wrong_classes(classes: Collection[str], model: ModelDescription) -> list[str]:
    """Why a task or an adaptation of a model can't have these classes, as ends of sentences; empty if it can."""
    return [wrong for wrong in (model.wrong_ways(len(classes)), wrong_labels(classes)) if wrong is not None]


def check_diagnosed(size: int, labels: Sequence[str]) -> None:
    """Refuse to diagnose so many examples, or any without labels.

    Raises:
        InvalidRequestError: they can't be.
    """
    if not labels:
        raise InvalidRequestError([FieldViolation("diagnose", "is for models that classify; this one regresses")])
    if size > MOST_DIAGNOSED:
        why = f"takes at most {MOST_DIAGNOSED} examples, and there are {size}: take some of each class"
        raise InvalidRequestError([FieldViolation("diagnose", why)])


@dataclass(frozen=True, slots=True)
class LabelledExamples:
    """The examples of an adaptation in the order in which they came.

    Attributes:
        x: raw inputs [S, *input].
        labels: one per example; empty for regression.
        targets: [S, D] float32, D being zero for classification.
        ids: of the examples.
    """

    x: Array
    labels: tuple[str, ...]
    targets: Array
    ids: ExampleIds

    def support(self, *, in_order: bool) -> tuple[SupportSet, tuple[str, ...]]:
        """The support set, and the labels of its classes; see `number_classes`."""
        if not self.labels:
            return SupportSet(self.x, self.targets, 0), ()
        y, classes = number_classes(self.labels, in_order=in_order)
        return SupportSet(self.x, y, len(classes)), classes


@dataclass(frozen=True, slots=True)
class ListedExamples:
    """What the owner of an adaptation may see of its examples.

    Attributes:
        ids: of the examples, in the order in which they came.
        labels: one per example; empty for regression.
        targets: of each example; empty for classification.
        revision: of the adaptation that has them.
        model: name of its model.
        diagnosis: what they say about each other's labels; None if it was not asked for.
        classes: labels that the diagnosis names by their places; empty without one.
    """

    ids: tuple[int, ...]
    labels: tuple[str, ...]
    targets: tuple[tuple[float, ...], ...]
    revision: int
    model: str
    diagnosis: Diagnosis | None = None
    classes: tuple[str, ...] = ()
