"""Arrays of samples, read into waveforms that can travel: one channel, float32 from -1 to 1, and a rate."""

import operator
from typing import Any

import numpy as np

from innerloop.checks import refuse_masked
from innerloop.errors import InvalidArgumentError
from innerloop.examples import Examples, Names, refuse_not_finite
from innerloop.guard import guarded
from innerloop.tensors import Array

MOST_CHANNELS = 32
"""Most channels that a server takes of one recording; an array of more has its axes in another order."""

_LARGEST_RATE = 2**32 - 1
_INTEGERS = {np.dtype(kind): 2.0 ** (8 * np.dtype(kind).itemsize - 1) for kind in ("int16", "int32")}
"""Full scale of integer samples by their type, as WAV files store them."""


def check_rate(rate: Any) -> int:
    """A sampling rate that can be sent.

    Raises:
        InvalidArgumentError: it is no whole number of samples a second.

    Example:
        >>> check_rate(0.5)
        Traceback (most recent call last):
        innerloop.errors.InvalidArgumentError: rate is a whole number of samples a second, such as 16000; not 0.5
    """
    try:
        whole = operator.index(rate.item() if isinstance(rate, np.generic) else rate)
    except TypeError:
        whole = int(rate) if isinstance(rate, float) and rate.is_integer() else 0
    if not 0 < whole <= _LARGEST_RATE:
        raise InvalidArgumentError(f"rate is a whole number of samples a second, such as 16000; not {rate!r}")
    return whole


def read_recordings(items: Array | list[Any], rate: int, names: Names) -> Examples:
    """Average channels, scale integers.

    Args:
        items: what `list_inputs` gave: recordings [n] or [n, channels] of any lengths. Floating-point samples are from
            -1 to 1; int16, int32 and uint8 ones as WAV files store them.
        rate: samples a second of all of them.
        names: what they are called.

    Raises:
        InvalidArgumentError: one of them is no array of samples; it is named.

    Example:
        >>> both = [np.zeros(3), np.full((2, 2), 2**14, np.int16)]
        >>> [np.frombuffer(each, np.float32).tolist() for each in read_recordings(both, 8000, Names("query")).values]
        [[0.0, 0.0, 0.0], [0.5, 0.5]]
    """
    return Examples([_read(item, names, place) for place, item in enumerate(items)], names, "waveforms", rate)


def _read(item: Any, names: Names, place: int) -> bytes:
    name = names[place]
    if isinstance(item, str | bytes | bytearray | memoryview) or hasattr(item, "read") or hasattr(item, "__fspath__"):
        raise InvalidArgumentError(f"rate is that of arrays of samples, and {name} is a file, which says its own")
    with guarded(name):
        refuse_masked(item, name)
        samples: Array = np.asarray(item)
    if samples.ndim == 0:
        raise InvalidArgumentError(f"{name} is a single number; put a recording's samples into an array in the list")
    if samples.ndim > 2 or (samples.ndim == 2 and not 1 <= samples.shape[1] <= MOST_CHANNELS):
        raise InvalidArgumentError(
            f"{name} has the shape {samples.shape}; a recording is [samples] or [samples, channels]"
        )
    if not len(samples):
        raise InvalidArgumentError(f"{name} has no samples")
    refuse_not_finite(samples[np.newaxis], Names(names.role, names.files, names.labels, names.start + place))
    mono = _full_scale(samples, name)
    if mono.ndim == 2:
        mono = mono.mean(axis=1, dtype=np.float64)
    return mono.astype("<f4").tobytes()


def _full_scale(samples: Array, name: str) -> Array:
    """Samples as floating-point numbers from -1 to 1."""
    if samples.dtype.kind == "f":
        return samples
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    scale = _INTEGERS.get(samples.dtype.newbyteorder("="))
    if scale is None:
        raise InvalidArgumentError(
            f"{name} has samples of type {samples.dtype}; floating-point numbers from -1 to 1, int16, int32 and uint8 "
            "can be sent"
        )
    return samples / scale
