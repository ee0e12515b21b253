"""Reads the options and the path of a source request, with messages that list what is possible."""

import math
from collections.abc import Sequence
from pathlib import Path

from innerloop_trainer.data.source import DataError, SourceRequest


def reject_unknown(request: SourceRequest, known: Sequence[str] = ()) -> None:
    """Raise a DataError if the request has an option that is not among `known`."""
    for key in request.options:
        if key not in known:
            there_are = f"it has: {', '.join(known)}" if known else "it has none"
            raise DataError(f"{request.name}: unknown option {key!r}; {there_are}")


def reject_path(request: SourceRequest) -> None:
    """Raise a DataError if an embedded source is given a path."""
    if request.path:
        raise DataError(f"{request.name} is built in and takes no path; write {request.name} without {request.path!r}")


def existing_path(request: SourceRequest, example: str) -> Path:
    """The path of the request, `~` expanded.

    Raises:
        DataError: there is no path, or nothing lies there; the message shows `example`.
    """
    if not request.path:
        raise DataError(f"{request.name} needs a path, for example {example}")
    path = Path(request.path).expanduser()
    if not path.exists():
        raise DataError(f"{request.name}: {path} does not exist; give the path of the data, for example {example}")
    return path


def choice(request: SourceRequest, key: str, choices: Sequence[str], default: str) -> str:
    """The option `key`, one of `choices`."""
    value = request.options.get(key, default)
    if value not in choices:
        raise DataError(f"{request.name}: {key}={value} is not known; choose one of: {', '.join(choices)}")
    return value


def flag(request: SourceRequest, key: str, *, default: bool) -> bool:
    """The option `key`, true or false."""
    return choice(request, key, ("true", "false"), str(default).lower()) == "true"


def number(request: SourceRequest, key: str, *, default: int) -> int:
    """The option `key`, a whole number."""
    value = request.options.get(key, str(default))
    try:
        return int(value)
    except ValueError as error:
        raise DataError(f"{request.name}: {key}={value} is not a whole number") from error


def fraction(request: SourceRequest, key: str, *, default: float) -> float:
    """The option `key`, between 0 and 1, both excluded."""
    value = request.options.get(key, str(default))
    try:
        result = float(value)
    except ValueError:
        result = math.nan
    if not 0 < result < 1:
        raise DataError(f"{request.name}: {key}={value} is not a number between 0 and 1")
    return result
