"""Random numbers that are functions of a support set, so that they are the same wherever a task is computed.

Every example gets a key, a whole number made of its own values and of the task's. For the noise of a layer, a key, an
inner step, a sample and the layer choose a place in a table of random numbers that belongs to the parameters, and the
noise is what stands there. For the augmentation of an example its key, the number of a copy and a name are mixed into
numbers. So draws depend neither on the batch around a task, nor on the order of its examples, nor on padding; they are
new in every episode, because other examples are beside an example there; and a graph of ONNX computes them, too.

Tables that many draws share are those of Salimans et al. 2017 (section 2). Two draws overlap somewhere in the table,
but at one place of a layer they are independent unless both begin at the same place.
"""

import zlib

import torch
from torch import Tensor

from innerloop_learner.loops import Index

TABLE_LENGTH = 2**16
"""Numbers in the table: 256 KiB of a bundle as float32. Layers with more outputs meet each number several times."""

LEVELS = 16.0
"""Levels per unit of a normalised input that make a key, so coarse that rounding hardly ever changes one."""

_MODULUS = 2**31 - 1
"""A prime; products of two smaller numbers stay below 2^63."""

_FACTOR = 48271
"""A primitive root of the modulus (Park and Miller 1993)."""

_LARGEST = 2.0**15
"""Inputs beyond this many levels count as this many."""


def example_keys(x: Tensor, mask: Tensor) -> Tensor:
    """The key of each support example, [T, S] int64.

    Equal examples of a task have equal keys. The smallest key among a task's examples is mixed into all of them, so
    that an example has another key in another task.

    Args:
        x: inputs [T, S, *input], normalised.
        mask: [T, S] bool, true for real examples.
    """
    levels = (x.flatten(2) * LEVELS).round().clamp(-_LARGEST, _LARGEST).to(torch.int64)
    factors = _mixed(torch.arange(1, levels.shape[2] + 1, device=x.device))
    own = (levels * factors % _MODULUS).sum(2) % _MODULUS
    smallest = own.masked_fill(~mask, _MODULUS).amin(1, keepdim=True)
    return _mixed(own + _mixed(smallest))


def keys_of_sample(keys: Tensor, step: Index, sample: int) -> Tensor:
    """The keys [T, S] of one sample of the noise in one inner step, from those of the examples."""
    return _mixed(_mixed(keys + step) + sample)


def normal_draws(table: Tensor, keys: Tensor, layer: str, like: Tensor) -> Tensor:
    """Standard normal numbers for the outputs of a layer, of the shape and type of `like` [T, N, ...].

    Args:
        table: [TABLE_LENGTH] standard normal numbers.
        keys: keys of a sample [T, N], see `keys_of_sample`.
        layer: name of the layer.
        like: outputs of the layer.
    """
    start = _mixed(keys + zlib.crc32(layer.encode()))
    places = (start.unsqueeze(-1) + torch.arange(like.shape[2:].numel(), device=keys.device)) % len(table)
    return table[places].view(like.shape).to(like.dtype)


def uniform_draws(keys: Tensor, name: str, count: int, dtype: torch.dtype) -> Tensor:
    """Numbers between 0 and 1, uniform and never 0, [*keys, count].

    Args:
        keys: keys of any shape, see `keys_of_sample`.
        name: what the numbers are for; other names give other numbers.
        count: how many numbers each key gives.
        dtype: floating-point type of the numbers.
    """
    start = _mixed(keys + zlib.crc32(name.encode())).unsqueeze(-1)
    # Mixed three times, as squares of neighbours differ regularly.
    numbers = _mixed(_mixed(_mixed(start + torch.arange(count, device=keys.device))))
    return (numbers.to(dtype) + 0.5) / _MODULUS


def _mixed(numbers: Tensor) -> Tensor:
    """Whole numbers in 0 .. _MODULUS - 1 that follow irregularly from other ones, which are not negative."""
    reduced = numbers % _MODULUS
    return (reduced * reduced % _MODULUS) * _FACTOR % _MODULUS
