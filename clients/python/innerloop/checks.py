"""Checks of single values: refuses those that stand for "nothing", which are never a label, a text, or an input."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from innerloop.errors import InvalidArgumentError

_SHOWN = 5
"""Positions that a message lists before it only counts the others."""


def nothing(value: Any) -> str:
    """Words for the kind of nothing that `value` is; an empty string when it is something.

    Example:
        >>> nothing(None), nothing(float("nan")), nothing("  "), nothing("cat"), nothing(0)
        ('None', 'NaN', 'an empty text', '', '')
    """
    if value is None:
        return "None"
    if isinstance(value, str):
        return "" if value.strip() else "an empty text"
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else ""
    if isinstance(value, np.datetime64 | np.timedelta64):
        return "NaT" if np.isnat(value) else ""
    # pandas has missing values of its own, and so have masked arrays; pandas is not imported for this.
    return {"NAType": "NA", "NaTType": "NaT", "MaskedConstant": "masked"}.get(type(value).__name__, "")


def refuse_nothing(values: Iterable[Any], subject: str) -> None:
    """Refuse values of which any is nothing.

    Args:
        values: what the caller gave, one for each example.
        subject: what a value is called in front of its position, for example "query".

    Raises:
        InvalidArgumentError: it names the positions, counted from 0.

    Example:
        >>> refuse_nothing(["good", None, ""], "query")
        Traceback (most recent call last):
        innerloop.errors.InvalidArgumentError: query 1 is None, query 2 is an empty text; leave out or fill in
    """
    found = [f"{subject} {position} is {kind}" for position, value in enumerate(values) if (kind := nothing(value))]
    if found:
        raise InvalidArgumentError(f"{listing(found, ', ')}; leave out or fill in")


def refuse_masked(values: Any, subject: str) -> None:
    """Refuse an array with masked elements: what lies behind a mask is no value.

    Raises:
        InvalidArgumentError: an element is masked.

    Example:
        >>> refuse_masked(np.ma.masked_equal([1, 2, -1], -1), "query 0")
        Traceback (most recent call last):
        innerloop.errors.InvalidArgumentError: query 0 holds masked elements; leave out or fill in
    """
    if np.ma.is_masked(values):
        raise InvalidArgumentError(f"{subject} holds masked elements; leave out or fill in")


def name_of(kind: str, name: Any) -> str:
    """The name of a model or the id of an adaptation, which can only be a string.

    Raises:
        InvalidArgumentError: it is something else, or nothing.

    Example:
        >>> name_of("model", None)
        Traceback (most recent call last):
        innerloop.errors.InvalidArgumentError: name the model by a string that is not empty; this is a NoneType
    """
    if not isinstance(name, str) or nothing(name):
        kind_given = "an empty one" if isinstance(name, str) else f"a {type(name).__name__}"
        raise InvalidArgumentError(f"name the {kind} by a string that is not empty; this is {kind_given}")
    return check_unicode(name, f"{kind} {name!r}")


def check_unicode(text: str, subject: str) -> str:
    """A text that can be sent.

    Raises:
        InvalidArgumentError: it holds half of a character, as texts cut in the wrong place do.

    Example:
        >>> check_unicode("caf" + chr(0xD800), "label 3")
        Traceback (most recent call last):
        innerloop.errors.InvalidArgumentError: label 3 is not valid Unicode: surrogates not allowed
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"{subject} is not valid Unicode: {error.reason}") from error
    return text


def listing(found: list[str], separator: str = "; ") -> str:
    """The first few of many findings, and how many there are besides.

    Example:
        >>> listing(["a", "b", "c", "d", "e", "f", "g"], ", ")
        'a, b, c, d, e, and 2 more'
    """
    rest = len(found) - _SHOWN
    return separator.join([*found[:_SHOWN], *([f"and {rest} more"] if rest > 0 else [])])
