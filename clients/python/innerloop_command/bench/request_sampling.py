"""Draws requests at random, from a seed: when each is sent, which RPC it calls, and which adaptation it asks."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from innerloop_command.bench.settings import Popularity, Rpc

BLOCK = 4096
"""Random numbers that are drawn at a time: NumPy takes as long for one as for hundreds."""


class Choice(NamedTuple):
    """The next request.

    Attributes:
        rpc: its RPC.
        slot: which of the live adaptations it asks, if it is a Predict.
        variant: a large number that picks one of the requests that were prepared.
    """

    rpc: Rpc
    slot: int
    variant: int


def arrivals(rate: float, generator: np.random.Generator) -> Iterator[float]:
    """Moments of a Poisson process in seconds from its start, without end.

    Args:
        rate: per second; gaps are exponential with mean 1 / rate.
        generator: draws them.
    """
    last = 0.0
    while True:
        moments = last + np.cumsum(generator.exponential(1 / rate, BLOCK))
        last = float(moments[-1])
        yield from moments.tolist()


def popularities(kind: Popularity, count: int, exponent: float) -> NDArray[np.float64]:
    """Probability of each of `count` adaptations [count].

    Args:
        kind: "uniform", or "zipf" for Zipf's law: the k-th is chosen in proportion to 1 / k^exponent.
        count: how many there are.
        exponent: of Zipf's law.
    """
    weights = np.ones(count) if kind == "uniform" else 1 / np.arange(1, count + 1, dtype=np.float64) ** exponent
    probabilities: NDArray[np.float64] = weights / weights.sum()
    return probabilities


def choices(
    mix: Mapping[Rpc, float], popularity: NDArray[np.float64], generator: np.random.Generator
) -> Iterator[Choice]:
    """Requests to send, without end.

    Args:
        mix: weights of RPCs.
        popularity: probability of each live adaptation; may be empty if the mix has no Predict.
        generator: draws them.
    """
    rpcs = list(mix)
    weights = np.array([mix[rpc] for rpc in rpcs])
    # Sums of probabilities may end a little below 1; a draw above them would name a slot too many.
    ends = np.cumsum(popularity)[:-1]
    while True:
        drawn = generator.choice(len(rpcs), BLOCK, p=weights / weights.sum())
        slots = np.searchsorted(ends, generator.random(BLOCK), side="right")
        variants = generator.integers(0, 2**31, BLOCK)
        for rpc, slot, variant in zip(drawn.tolist(), slots.tolist(), variants.tolist(), strict=True):
            yield Choice(rpcs[rpc], slot, variant)
