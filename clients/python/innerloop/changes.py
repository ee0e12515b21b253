"""Changes of the examples of an adaptation, ready to be sent."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from numpy.typing import ArrayLike

from innerloop.adaptation_info import NO_LABELS
from innerloop.errors import InvalidArgumentError
from innerloop.examples import Names
from innerloop.guard import guarded
from innerloop.labels import name_labels
from innerloop.recipe import Answers, put_answers, read_answers
from innerloop.tensors import Array
from innerloop.v1 import adaptation_pb2 as pb


class Example(NamedTuple):
    """An example that an adaptation has learned from.

    Attributes:
        id: names it in `Adaptation.remove` and `Adaptation.relabel`.
        label: the caller's own; None for regression.
        target: float32 [D]; None for classification.
    """

    id: int
    label: Any
    target: Array | None


@dataclass(frozen=True)
class Change:
    """What is to change.

    Attributes:
        add: examples to learn from as well.
        remove: ids of examples.
        remove_classes: names of labels whose examples go.
        relabel: ids of examples that get other answers.
        answers: theirs.
        rename: old and new names of labels.
        labels: the caller's own objects by the names of new labels.
        names: what the added examples are called in messages.
    """

    add: pb.Support | None = None
    remove: tuple[int, ...] = ()
    remove_classes: tuple[str, ...] = ()
    relabel: tuple[int, ...] = ()
    answers: Answers | None = None
    rename: tuple[tuple[str, str], ...] = ()
    labels: Mapping[str, Any] = field(default_factory=lambda: NO_LABELS)
    names: Names = field(default_factory=lambda: Names("support example"))

    @property
    def nothing(self) -> bool:
        """Whether nothing is to change."""
        return self.add is None and not (self.remove or self.remove_classes or self.relabel or self.rename)

    def with_ids(self, remove: tuple[int, ...], relabel: tuple[int, ...]) -> "Change":
        """The same change of examples of other ids."""
        return replace(self, remove=remove, relabel=relabel)

    def to_message(self, adaptation_id: str, expected_revision: int, request_id: str) -> pb.UpdateAdaptationRequest:
        """The request that asks for it."""
        relabel = None
        if self.answers is not None:
            relabel = pb.Relabelling(example_ids=self.relabel)
            put_answers(relabel, self.answers)
        return pb.UpdateAdaptationRequest(
            adaptation_id=adaptation_id,
            add=self.add,
            remove_examples=self.remove,
            remove_classes=self.remove_classes,
            relabel=relabel,
            rename_classes=[pb.RenamedClass(label=old, new_label=new) for old, new in self.rename],
            expected_revision=expected_revision,
            request_id=request_id,
        )


def read_removal(examples: Iterable[int], classes: Iterable[Hashable]) -> Change:
    """See `Adaptation.remove`.

    Raises:
        InvalidArgumentError: an id is none.
    """
    return Change(remove=_ids(examples), remove_classes=tuple(name_labels(classes).names))


def read_relabelling(
    examples: Iterable[int],
    labels: Iterable[Hashable] | None,
    targets: ArrayLike | None,
    classes: Mapping[Any, Hashable] | None,
) -> Change:
    """See `Adaptation.relabel`.

    Raises:
        InvalidArgumentError: an id is none, or there are more or fewer answers.
    """
    ids, renamed = _ids(examples), name_labels(list((classes or {}).values()))
    rename = tuple(zip(name_labels(list(classes or ())).names, renamed.names, strict=True))
    answers = read_answers(labels, targets) if ids else None
    if answers is not None and len(answers) != len(ids):
        raise InvalidArgumentError(f"there are {len(answers)} answers for {len(ids)} examples; give one for each")
    new = {**renamed.originals, **(answers.originals if answers is not None else {})}
    return Change(relabel=ids, answers=answers, rename=rename, labels=new)


def read_changes(
    remove: Iterable[int],
    remove_classes: Iterable[Hashable],
    relabel: Mapping[int, Any] | None,
    rename: Mapping[Any, Hashable] | None,
    *,
    regresses: bool,
) -> Change:
    """See `Adaptation.update`; `regresses` says whether examples have targets.

    Raises:
        InvalidArgumentError: an id is none.
    """
    ids, answers = tuple(relabel or ()), list((relabel or {}).values())
    change = read_relabelling(ids, None if regresses else answers, answers if regresses else None, rename)
    removal = read_removal(remove, remove_classes)
    return replace(change, remove=removal.remove, remove_classes=removal.remove_classes)


def check_revision(revision: int | None) -> int:
    """A revision as it travels: zero for any.

    Raises:
        InvalidArgumentError: it is none.
    """
    if revision is None:
        return 0
    if isinstance(revision, bool) or not isinstance(revision, int) or revision < 1:
        raise InvalidArgumentError("expected_revision must be a whole number from 1, or None for any")
    return revision


def _ids(examples: Iterable[int]) -> tuple[int, ...]:
    with guarded("ids of examples"):
        ids = tuple(examples)
        if any(isinstance(each, bool) or int(each) != each or each < 0 for each in ids):
            raise InvalidArgumentError("examples are named by their ids, whole numbers from 0")
        return tuple(map(int, ids))
