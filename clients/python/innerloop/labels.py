"""The caller's own labels: strings on the wire, the caller's objects again in the answers."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple

from innerloop.errors import InvalidArgumentError


class NamedLabels(NamedTuple):
    """Labels ready to travel.

    Attributes:
        names: one string per example.
        originals: from each string to the caller's object.
    """

    names: list[str]
    originals: Mapping[str, Any]


def name_labels(labels: Iterable[Hashable]) -> NamedLabels:
    """Name every label by its `str`.

    Args:
        labels: one per example; strings, numbers, enum members, or anything else that is hashable and has a `str` of
            its own. Arrays count as the numbers in them.

    Raises:
        InvalidArgumentError: a label is not hashable or can't be sent, or two different ones read the same.
    """
    if isinstance(labels, str | bytes):
        raise InvalidArgumentError("labels are one per example, in a list")
    values = labels.tolist() if hasattr(labels, "tolist") else labels
    names: dict[Hashable, str] = {}
    try:
        of_examples = [names.get(label) or names.setdefault(label, str(label)) for label in values]
    except TypeError as error:
        raise InvalidArgumentError(f"labels must be hashable, one per example: {error}") from error
    for name in names.values():
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgumentError(f"label {name!r} is not valid Unicode: {error.reason}") from error
    originals = {name: label for label, name in names.items()}
    if len(originals) < len(names):
        clash = next(label for label, name in names.items() if originals[name] != label)
        other = originals[names[clash]]
        raise InvalidArgumentError(f"labels {clash!r} and {other!r} both read {names[clash]!r}; make them differ")
    return NamedLabels(of_examples, originals)
