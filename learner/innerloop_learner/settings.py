"""Settings of methods, backbones, objectives and estimators: frozen dataclasses whose fields are declared by `setting`.

Names, types, ranges, defaults and what `innerloop methods NAME` prints are all read off these classes.

    >>> @dataclass(frozen=True)
    ... class Oven:
    ...     heat: int = setting(180, "degrees", least=50, most=300)
    >>> with_settings("oven", Oven, {"heat": 200})
    Oven(heat=200)
    >>> with_settings("oven", Oven, {"heat": 400})
    Traceback (most recent call last):
        ...
    innerloop_learner.settings.SettingsError: oven: heat must be at most 300, not 400
    >>> described(Oven)
    [Described(name='heat', kind='a whole number', default=180, doc='degrees')]
"""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin

T = TypeVar("T")

_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


class SettingsError(ValueError):
    """Settings, inputs or tasks are refused; the message says which, and what is allowed."""


@dataclass(frozen=True)
class NoSettings:
    """The settings of a method or part that has none."""


def setting(default: T, doc: str, *, least: float | None = None, most: float | None = None) -> T:
    """Declare a field of a dataclass of settings.

    A subclass that only has another default writes just that; the rest is inherited.

    Args:
        default: default value.
        doc: meaning in a few words, with the unit.
        least: smallest number allowed; None for no limit.
        most: largest number allowed; None for no limit.
    """
    made: Any = field(default=default, metadata={"doc": doc, "least": least, "most": most})
    return made  # type: ignore[no-any-return]


@dataclass(frozen=True)
class StepSettings:
    """Settings of every method with inner steps.

    Raises:
        ValueError: steps outside 1 to `max_steps`.
    """

    steps: int = setting(5, "inner steps in training, and at serving unless a request names another number")
    max_steps: int = setting(20, "most inner steps that a request may ask for")

    def __post_init__(self) -> None:
        if not 0 < self.steps <= self.max_steps:
            raise ValueError(f"steps must lie between 1 and max_steps ({self.max_steps}), not {self.steps}")


@dataclass(frozen=True)
class Described:
    """The description of one setting, for people.

    Attributes:
        name: name of the setting.
        kind: values that it takes, in words.
        default: default value.
        doc: meaning in a few words, with the unit.
    """

    name: str
    kind: str
    default: Any
    doc: str


def described(kind: type[Any]) -> list[Described]:
    """Describe the settings of a dataclass, in the order of its fields."""
    return [
        Described(each.name, _describe(each.type), each.default, declared(kind, each.name).get("doc", ""))
        for each in fields(kind)
    ]


@contextmanager
def refusing(owner: str) -> Iterator[None]:
    """Turn a ValueError inside this context into a SettingsError whose message names the owner of the settings.

    Raises:
        SettingsError: a ValueError was raised inside.
    """
    try:
        yield
    except SettingsError:
        raise
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{owner}: {error}") from error


def with_settings(owner: str, function: Callable[..., T], settings: Mapping[str, Any], *args: Any) -> T:
    """Call `function(*args, **settings)` after checking the settings.

    Args:
        owner: what the settings belong to, for messages, for example "backbone conv4".
        function: function or dataclass. Its keyword arguments behind `args` are the settings, and their annotations are
            the settings' types.
        settings: values of settings by name.
        args: positional arguments of the function.

    Raises:
        SettingsError: there is no setting of this name, one without a default is missing, or a value has another type
            or is out of range.
    """
    known = dict(list(inspect.signature(function).parameters.items())[len(args) :])
    for name, value in settings.items():
        if name not in known:
            there_are = f"it has: {', '.join(known)}" if known else "it has none"
            raise SettingsError(f"{owner} has no setting {name!r}; {there_are}")
        if not _fits(value, known[name].annotation):
            raise SettingsError(f"{owner}: {name} must be {_describe(known[name].annotation)}, not {value!r}")
        limits = declared(function, name)
        least, most = limits.get("least"), limits.get("most")
        if least is not None and not value >= least:
            raise SettingsError(f"{owner}: {name} must be at least {least}, not {value}")
        if most is not None and not value <= most:
            raise SettingsError(f"{owner}: {name} must be at most {most}, not {value}")
    for name, parameter in known.items():
        if (
            name not in settings
            and parameter.default is parameter.empty
            and parameter.kind is not parameter.VAR_KEYWORD
        ):
            raise SettingsError(f"{owner} lacks {name}")
    with refusing(owner):
        return function(*args, **settings)


def declared(function: Any, name: str) -> Mapping[str, Any]:
    """The declaration of a field by `setting`, in the class itself or in the nearest base class that has one.

    Returns:
        "doc", "least" and "most"; empty for a field that `setting` did not declare.
    """
    classes = inspect.getmro(function) if inspect.isclass(function) else ()
    found = (vars(each).get("__dataclass_fields__", {}).get(name) for each in classes)
    return next((each.metadata for each in found if each is not None and each.metadata), {})


def is_finite(value: Any) -> bool:
    """Whether a value is a number, and neither infinite nor NaN."""
    if isinstance(value, int):
        return not isinstance(value, bool)
    return isinstance(value, float) and math.isfinite(value)


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) is UnionType:
        return any(_fits(value, each) for each in get_args(kind))
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is Mapping:
        return isinstance(value, Mapping)
    if get_origin(kind) is Sequence:
        return isinstance(value, list | tuple) and all(_fits(element, get_args(kind)[0]) for element in value)
    if kind in (int, float):
        return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    return isinstance(value, kind) if kind in (str, bool, NoneType) else True


def _describe(kind: Any) -> str:
    if get_origin(kind) is UnionType:
        return " or ".join(_describe(each) for each in get_args(kind) if each is not NoneType)
    if get_origin(kind) is Literal:
        return " or ".join(map(str, get_args(kind)))
    if get_origin(kind) is Mapping:
        return "an object"
    if get_origin(kind) is Sequence:
        return f"a list, each {_describe(get_args(kind)[0])}"
    return _WORDS[kind]
