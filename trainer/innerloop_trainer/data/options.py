"""Typed, documented options of data sources: the keys and values of `?key=value&key=value` behind a source.

The options of a source are a frozen dataclass whose fields are made by `option`. `read_options` fills it from a
request, `write_options` gives its text back, and `describe_options` is what a command line prints.
"""

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from innerloop_trainer.data.source import DataError, SourceRequest

T = TypeVar("T")


@dataclass(frozen=True)
class Kind(Generic[T]):
    """The form of an option's values in a source's text.

    Attributes:
        form: description of the values that may be written, for messages and help.
        read: function from text to value; raises ValueError if the text has another form.
        write: function from value to text, the reverse of `read`.
    """

    form: str
    read: Callable[[str], T]
    write: Callable[[T], str] = str


def one_of(*choices: str) -> Kind[str]:
    """One word of several."""

    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(text)
        return text

    return Kind(f"one of: {', '.join(choices)}", read)


def whole_number(smallest: int | None = None) -> Kind[int]:
    """An integer, `smallest` or more."""

    def read(text: str) -> int:
        value = int(text)
        if smallest is not None and value < smallest:
            raise ValueError(text)
        return value

    return Kind("a whole number" if smallest is None else f"a whole number, at least {smallest}", read)


def _read_fraction(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise ValueError(text)
    return value


def _read_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", text)
    if match is None:
        raise ValueError(text)
    height = int(match[1])
    return height, int(match[2] or height)


def _write_size(size: tuple[int, int]) -> str:
    height, width = size
    return str(height) if height == width else f"{height}x{width}"


def _read_flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


FLAG = Kind("true or false", _read_flag, lambda value: str(value).lower())
FRACTION = Kind("a number between 0 and 1", _read_fraction)
SIZE = Kind("a number of pixels or HEIGHTxWIDTH, say 32x48", _read_size, _write_size)
TEXT = Kind("a name", str)


@dataclass(frozen=True)
class OptionHelp:
    """One option as a command line prints it.

    Attributes:
        name: key of the option.
        form: description of its values.
        default: text of its default.
        help: sentence that says what the option does.
    """

    name: str
    form: str
    default: str
    help: str


def option(default: T, kind: Kind[T], help: str) -> T:  # noqa: A002 - the word of argparse, click and typer
    """Declare a field of a dataclass of options.

    Args:
        default: default of the option.
        kind: form of its values.
        help: sentence that says what the option does.
    """
    field: T = dataclasses.field(default=default, metadata={"kind": kind, "help": help})
    return field


def read_options(request: SourceRequest, options: type[T]) -> T:
    """The options of a request, defaults filled in.

    Args:
        request: the parsed text that names the source.
        options: the dataclass of the source's options.

    Raises:
        DataError: there is no such option, or a value has another form; the message lists what is possible.
    """
    fields = {field.name: field for field in dataclasses.fields(options)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, text in request.options.items():
        if key not in fields:
            there_are = f"it has: {', '.join(fields)}" if fields else "it has none"
            raise DataError(f"{request.name}: unknown option {key!r}; {there_are}")
        kind: Kind[Any] = fields[key].metadata["kind"]
        try:
            values[key] = kind.read(text)
        except ValueError as error:
            raise DataError(f"{request.name}: {key}={text} is not understood; write {kind.form}") from error
    return options(**values)


def write_options(options: Any) -> dict[str, str]:
    """Write all options of a source, defaults included, as texts that `read_options` reads."""
    return {
        field.name: field.metadata["kind"].write(getattr(options, field.name)) for field in dataclasses.fields(options)
    }


def describe_options(options: type[Any]) -> list[OptionHelp]:
    """Describe each option of a source.

    >>> from innerloop_trainer.data import sources
    >>> [each.name for each in describe_options(sources["omniglot"].options)]
    ['split', 'size', 'rotations', 'domains']
    """
    return [
        OptionHelp(
            field.name,
            field.metadata["kind"].form,
            field.metadata["kind"].write(field.default),
            field.metadata["help"],
        )
        for field in dataclasses.fields(options)
    ]


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
    path = expand_home(Path(request.path))
    if not path.exists():
        raise DataError(f"{request.name}: {path} does not exist; give the path of the data, for example {example}")
    return path


def expand_home(path: Path) -> Path:
    """The path with the home folder in place of `~` or `~name`; as it is where there is no such folder."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path
