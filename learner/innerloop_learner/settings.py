"""Values by name, from a command line or a manifest, checked against the signature that takes them.

What does not fit is refused by name before it is used.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args, get_origin

T = TypeVar("T")

_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


class SettingsError(ValueError):
    """A method or backbone does not take these settings, inputs or tasks; the message says which, and what it takes."""


def with_settings(owner: str, function: Callable[..., T], settings: Mapping[str, Any], *args: Any) -> T:
    """Call `function(*args, **settings)` after checking the settings.

    Args:
        owner: what the settings belong to, for messages, for example "backbone conv4".
        function: its keyword arguments behind `args` are the settings there are; their annotations say of which type.
        settings: by name.
        args: what else the function takes.

    Raises:
        SettingsError: a name that the function does not have, or a value of another type or out of range.
    """
    known = dict(list(inspect.signature(function).parameters.items())[len(args) :])
    for name, value in settings.items():
        if name not in known:
            there_are = f"it has: {', '.join(known)}" if known else "it has none"
            raise SettingsError(f"{owner} has no setting {name!r}; {there_are}")
        if not _fits(value, known[name].annotation):
            raise SettingsError(f"{owner}: {name} must be {_describe(known[name].annotation)}, not {value!r}")
    try:
        return function(*args, **settings)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{owner}: {error}") from error


def complete(function: Callable[..., Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the function's defaults filled in, so that a later change of a default does not change them."""
    parameters = inspect.signature(function).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}
    return {**defaults, **settings}


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is Mapping:
        return isinstance(value, Mapping)
    if get_origin(kind) is Sequence:
        return isinstance(value, list | tuple) and all(_fits(element, get_args(kind)[0]) for element in value)
    if kind in (int, float):
        return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    return isinstance(value, kind) if kind in (str, bool) else True


def _describe(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(str, get_args(kind)))
    if get_origin(kind) is Mapping:
        return "an object"
    if get_origin(kind) is Sequence:
        return f"a list, each {_describe(get_args(kind)[0])}"
    return _WORDS[kind]
