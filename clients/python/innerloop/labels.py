"""The caller's own labels: strings on the wire, the caller's objects again in the answers."""

from collections.abc import Hashable, Iterable, Mapping, Set
from typing import Any, NamedTuple

import numpy as np

from innerloop.checks import check_unicode, nothing, refuse_nothing
from innerloop.errors import InvalidArgumentError
from innerloop.guard import guarded

_PLAIN_KINDS = "biufSU"
"""Element types of NumPy that Python has plain values for: booleans, numbers, strings."""


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
            its own. Arrays and tensors of any library count as the numbers in them.

    Raises:
        InvalidArgumentError: a label is nothing (None, NaN, an empty string), is not hashable, or can't be sent; or
            two different labels read the same.

    Example:
        >>> name_labels(["cat", "dog", "cat"]).names
        ['cat', 'dog', 'cat']
        >>> name_labels([1, np.int64(1), np.array(1)]).originals
        {'1': 1}
        >>> name_labels(["cat", None])
        Traceback (most recent call last):
        innerloop.errors.InvalidArgumentError: the label of support example 1 is None; leave out or fill in
    """
    with guarded("labels"):
        plain = [_plain(label, position) for position, label in enumerate(_listed(labels))]
        refuse_nothing(plain, "the label of support example")
    names: dict[Hashable, str] = {}
    originals: dict[str, Any] = {}
    for position, label in enumerate(plain):
        with guarded(f"the label of support example {position}"):
            if label not in names:
                names[label] = _name(label, position)
                _refuse_clash(originals.setdefault(names[label], label), label, names[label])
    return NamedLabels([names[label] for label in plain], originals)


def refuse_clashes(known: Mapping[str, Any], labels: Mapping[str, Any]) -> None:
    """Refuse labels that read like others which are known already.

    Raises:
        InvalidArgumentError: they do, and are not the same.
    """
    for name, label in labels.items():
        with guarded(f"label {name!r}"):
            _refuse_clash(known.get(name, label), label, name)


def _listed(labels: Iterable[Any]) -> list[Any]:
    if isinstance(labels, str | bytes | bytearray | memoryview):
        raise InvalidArgumentError("labels are one per example, in a list; this is a single one")
    if isinstance(labels, Set | Mapping):
        raise InvalidArgumentError(f"labels are in the order of the examples, which a {type(labels).__name__} has not")
    # NumPy turns its times into bare numbers on the way to a list.
    in_one_go = hasattr(labels, "tolist") and getattr(getattr(labels, "dtype", None), "kind", "") not in ("m", "M")
    values = labels.tolist() if in_one_go else list(labels)  # type: ignore[attr-defined]
    if not isinstance(values, list):
        raise InvalidArgumentError("labels are one per example, in a list; this is a single one")
    return values


def _plain(label: Any, position: int) -> Any:
    """The number or string in a scalar or an array without dimensions, whatever library it is of."""
    if isinstance(label, np.generic):
        return label.item() if label.dtype.kind in _PLAIN_KINDS else label
    if isinstance(label, np.ndarray) and label.ndim == 0:
        return _plain(label[()], position)
    if isinstance(label, type) or not hasattr(label, "__array__") or not hasattr(label, "shape"):
        return label
    if len(label.shape) > 0:
        raise InvalidArgumentError(
            f"the label of support example {position} is an array of shape {tuple(label.shape)}, not one label; "
            "if it holds a single one, pass labels.reshape(-1)"
        )
    return label.item() if hasattr(label, "item") else np.asarray(label).item()


def _name(label: Any, position: int) -> str:
    name = str(label)
    if nothing(name):
        raise InvalidArgumentError(f"the label of support example {position} reads as an empty text")
    return check_unicode(name, f"label {name!r}")


def _refuse_clash(first: Any, label: Any, name: str) -> None:
    if first is not label and first != label:
        raise InvalidArgumentError(f"labels {first!r} and {label!r} both read {name!r}; make them differ")
