"""What an update makes of the examples of an adaptation."""

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from innerloop_learner.encoders import join_packed
from innerloop_server.domain.errors import FieldViolation, InvalidRequestError
from innerloop_server.domain.examples import LabelledExamples, wrong_classes
from innerloop_server.domain.models import ModelDescription
from innerloop_server.domain.tasks import Array
from innerloop_server.domain.updates import SupportUpdate

MOST_NAMED = 5
"""Most examples or classes that one violation names."""


def changed_examples(before: LabelledExamples, update: SupportUpdate) -> LabelledExamples:
    """The examples after an update.

    Those that stay keep their order and ids; new ones come after them.

    Args:
        before: the examples; the update is of the same kind, classification or regression.
        update: the change.

    Raises:
        InvalidRequestError: it names an example or a class that is not there, or names one twice.
    """
    added = len(update.x)
    _check(before, update)
    labels, targets = _relabelled(before, update)
    edits, ids = update.edits, before.ids
    gone, gone_classes = set(edits.remove), set(edits.remove_classes)
    stay = [
        place
        for place, each in enumerate(ids.given)
        if each not in gone and (not before.labels or before.labels[place] not in gone_classes)
    ]
    return LabelledExamples(
        joined_inputs(before.x[stay], update.x),
        (*(labels[place] for place in stay if labels), *edits.labels),
        np.concatenate([targets[stay], update.targets]) if added else targets[stay],
        ids.only(stay).added(added),
    )


def check_examples(examples: LabelledExamples, model: ModelDescription, most: int) -> None:
    """Refuse examples that an Adapt request could not have.

    Args:
        examples: of an adaptation after an update.
        model: that is to learn from them.
        most: examples that there may be.

    Raises:
        InvalidRequestError: there are too many, or too few, or they have a wrong number of classes, or these too long
            labels.
    """
    if len(examples.x) > most:
        raise _refusal(f"has {len(examples.x)} examples, at most {most} are accepted")
    if not len(examples.x):
        raise _refusal("has no examples left; delete it instead")
    if model.traits.task_kind == "classification":
        check_classes(set(examples.labels), model)


def check_classes(classes: Collection[str], model: ModelDescription) -> None:
    """Refuse as many classes as a model does not take, or as long labels as no adaptation has.

    Raises InvalidRequestError.
    """
    for wrong in wrong_classes(classes, model):
        raise _refusal(wrong)


def _refusal(wrong: str) -> InvalidRequestError:
    return InvalidRequestError([FieldViolation("adaptation", f"with this change the adaptation {wrong}")])


def joined_inputs(before: Array, added: Array) -> Array:
    """Raw inputs of one model together: packed texts in the width of the longest, bytes beside floats as floats."""
    if not len(added):
        return before
    if before.ndim == 2 and before.dtype == added.dtype == np.uint8 and before.shape[1] != added.shape[1]:
        return join_packed([before, added])
    return np.concatenate([before, added])


def _check(before: LabelledExamples, update: SupportUpdate) -> None:
    edits, violations = update.edits, []
    there, classes = set(before.ids.given), set(before.labels)
    for field, ids in (("remove_examples", edits.remove), ("relabel.example_ids", edits.relabel)):
        if missing := _named(each for each in ids if each not in there):
            violations.append(FieldViolation(field, f"names examples that the adaptation does not have: {missing}"))
    old_names = [old for old, _ in edits.rename]
    for field, labels in (("remove_classes", edits.remove_classes), ("rename_classes", old_names)):
        if missing := _named(repr(label) for label in labels if label not in classes):
            violations.append(FieldViolation(field, f"names classes that the adaptation does not have: {missing}"))
    if violations:
        raise InvalidRequestError(violations)


def _relabelled(before: LabelledExamples, update: SupportUpdate) -> tuple[Sequence[str], Array]:
    """The answers of the examples that were there before, those that go included."""
    renamed = dict(update.edits.rename)
    labels, targets = [renamed.get(label, label) for label in before.labels], before.targets
    places = {each: place for place, each in enumerate(before.ids.given)}
    changed = [places[each] for each in update.edits.relabel]
    for place, label in zip(changed, update.edits.new_labels, strict=False):  # there are none in regression
        labels[place] = label
    if changed and not labels:
        targets = targets.copy()
        targets[changed] = update.new_targets
    return labels, targets


def _named(values: Iterable[object]) -> str:
    """The first of some values, and how many more there are."""
    listed = [str(value) for value in values]
    more = f" and {len(listed) - MOST_NAMED} more" if len(listed) > MOST_NAMED else ""
    return ", ".join(listed[:MOST_NAMED]) + more
