"""Augmentations by the text that names them."""

from collections.abc import Sequence

from innerloop_learner.augmentations.augmentation import Augmentation, augmentations, build_augmentation
from innerloop_learner.settings import SettingsError

NONE = "none"
"""Text that names no augmentation."""


def named_augmentations(text: str) -> list[tuple[str, Augmentation]]:
    """Names and augmentations of a text: `NAME?strength=number&strength=number`, joined by commas, or `none`.

    >>> [(name, part)] = named_augmentations("affine?rotation=30&shear=0")
    >>> part.strengths
    {'rotation': 30.0, 'scale': 0.2, 'shear': 0.0}
    >>> named_augmentations("affine?rotation=much")
    Traceback (most recent call last):
        ...
    innerloop_learner.settings.SettingsError: affine?rotation=much: rotation must be a number, not 'much'

    Raises:
        UnknownNameError: there is no such augmentation; the message lists what there is.
        SettingsError: there is no such strength, or it is not written like this or out of range.
    """
    return [] if text == NONE else [_read_one(each) for each in text.split(",")]


def text_of(parts: Sequence[tuple[str, Augmentation]]) -> str:
    """The text that names augmentations with all of their strengths, the reverse of `named_augmentations`.

    >>> text_of(named_augmentations("elastic,affine?rotation=30"))
    'elastic?distance=0.03,affine?rotation=30.0&scale=0.2&shear=0.3'
    """
    written = (f"{name}?{'&'.join(f'{key}={value}' for key, value in part.strengths.items())}" for name, part in parts)
    return ",".join(written)


def _read_one(text: str) -> tuple[str, Augmentation]:
    name, _, tail = text.partition("?")
    augmentations[name]
    strengths = {}
    for pair in filter(None, tail.split("&")):
        key, separator, value = pair.partition("=")
        if not separator:
            raise SettingsError(f"{text}: write strengths as name=number, joined by &, not {pair!r}")
        strengths[key] = _number(text, key, value)
    return name, build_augmentation(name, strengths)


def _number(text: str, key: str, value: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise SettingsError(f"{text}: {key} must be a number, not {value!r}") from error
