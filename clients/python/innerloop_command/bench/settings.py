"""Settings of a measurement."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, get_args

from innerloop.channel import TLS
from innerloop.errors import InvalidArgumentError

Rpc = Literal["Adapt", "Predict", "AdaptPredict"]
Popularity = Literal["uniform", "zipf"]

RPCS: Mapping[str, Rpc] = MappingProxyType({"adapt": "Adapt", "predict": "Predict", "adapt-predict": "AdaptPredict"})
"""RPCs by their names in a mix."""

MOST_STEPS = 2**32 - 1
"""The largest number of steps that a request can carry, a uint32."""


@dataclass(frozen=True)
class ClosedLoop:
    """Clients of which each sends its next request when it has the answer to its last.

    Attributes:
        clients: how many.
    """

    clients: int

    def __post_init__(self) -> None:
        if self.clients < 1:
            raise InvalidArgumentError(f"clients: is {self.clients}, at least 1 is needed")

    def __str__(self) -> str:
        return f"{self.clients} client{'s' * (self.clients != 1)}"


@dataclass(frozen=True)
class OpenLoop:
    """Requests at the times of a Poisson process, however long the answers to earlier ones take.

    Attributes:
        rate: requests per second.
    """

    rate: float

    def __post_init__(self) -> None:
        if not 0 < self.rate < math.inf:
            raise InvalidArgumentError(f"rate: is {self.rate:g}, more than 0 requests per second are needed")

    def __str__(self) -> str:
        return f"{self.rate:g}/s"


Load = ClosedLoop | OpenLoop


@dataclass(frozen=True)
class BenchSettings:
    """A measurement of one model on a running server.

    Attributes:
        model: its name.
        loads: what to measure, one after another, each with a warm-up of its own.
        server: "host:port".
        tls: as for `Client`.
        api_key: as for `Client`.
        mix: how often each RPC is called, relative to the others.
        adaptations: how many live adaptations Predict chooses from.
        popularity: whether it chooses all equally often, or the k-th in proportion to 1 / k^zipf_exponent.
        zipf_exponent: exponent of Zipf's law; the default is that of YCSB (Cooper et al. 2010).
        ways: classes of a task; as many as the model was trained for when None.
        shots: support examples of each class, or in all for regression; as many as in training when None.
        queries: inputs that a request asks about.
        steps: inner-loop steps; the model's default when None.
        warm_up: seconds of load before anything is measured.
        duration: seconds that are measured.
        processes: number of processes that send requests.
        connections: number of connections of each process.
        max_under_way: most requests of the open loop that may wait for an answer at a time; further ones are counted as
            dropped.
        timeout: seconds after which a request fails.
        seed: of tasks, sending times and choices.
        keep_adaptations: leave the live adaptations on the server.
        metrics_url: URL of the server's Prometheus metrics, from which follows what server and device did.
        server_pid: process id of a server on this machine, whose CPU use is measured, its children included.
    """

    model: str
    loads: tuple[Load, ...] = (ClosedLoop(8),)
    server: str = "localhost:50051"
    tls: bool | TLS = field(default=False, repr=False)
    api_key: str | None = field(default=None, repr=False)
    mix: Mapping[Rpc, float] = field(default_factory=lambda: {"Adapt": 1.0, "Predict": 8.0, "AdaptPredict": 1.0})
    adaptations: int = 100
    popularity: Popularity = "uniform"
    zipf_exponent: float = 0.99
    ways: int | None = None
    shots: int | None = None
    queries: int = 5
    steps: int | None = None
    warm_up: float = 2.0
    duration: float = 10.0
    processes: int = 1
    connections: int = 4
    max_under_way: int = 4096
    timeout: float = 30.0
    seed: int = 0
    keep_adaptations: bool = False
    metrics_url: str | None = None
    server_pid: int | None = None

    def __post_init__(self) -> None:
        numbers = ("adaptations", "queries", "processes", "connections", "max_under_way", "ways", "shots", "server_pid")
        for name in numbers:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidArgumentError(f"{name}: is {value}, at least 1 is needed")
        for name in ("duration", "timeout"):
            if not 0 < getattr(self, name) < math.inf:
                raise InvalidArgumentError(f"{name}: is {getattr(self, name):g}, more than 0 seconds are needed")
        if not 0 <= self.warm_up < math.inf:
            raise InvalidArgumentError(f"warm_up: is {self.warm_up:g}, 0 or more seconds are needed")
        if self.steps is not None and not 0 <= self.steps <= MOST_STEPS:
            raise InvalidArgumentError(f"steps: is {self.steps}, 0 or more are needed, and at most {MOST_STEPS}")
        if self.seed < 0:
            raise InvalidArgumentError(f"seed: is {self.seed}, 0 or more is needed")
        if not 0 <= self.zipf_exponent < math.inf:
            raise InvalidArgumentError(f"zipf_exponent: is {self.zipf_exponent:g}, 0 or more is needed")
        if self.popularity not in get_args(Popularity):
            raise InvalidArgumentError(f"popularity: is {self.popularity!r}, one of uniform and zipf is needed")
        if not self.loads:
            raise InvalidArgumentError("loads: there are none")
        _check_mix(self.mix)

    @property
    def live_adaptations(self) -> int:
        """Number of adaptations to make beforehand: none when the mix has no Predict."""
        return self.adaptations if self.mix.get("Predict") else 0


def parse_mix(text: str) -> dict[Rpc, float]:
    """Weights of RPCs from for example "adapt=1,predict=8,adapt-predict=1".

    Raises:
        InvalidArgumentError: it is not of that form.
    """
    mix: dict[Rpc, float] = {}
    for part in text.split(","):
        name, _, weight = (piece.strip() for piece in part.partition("="))
        if name not in RPCS:
            raise InvalidArgumentError(f"mix: there is no {name!r}; it is made of NAME=WEIGHT with {', '.join(RPCS)}")
        if RPCS[name] in mix:
            raise InvalidArgumentError(f"mix: has {name} twice")
        try:
            mix[RPCS[name]] = float(weight)
        except ValueError:
            raise InvalidArgumentError(f"mix: the weight of {name} is {weight!r}, a number is needed") from None
    _check_mix(mix)
    return mix


def _check_mix(mix: Mapping[Rpc, float]) -> None:
    unknown = sorted(set(mix) - set(RPCS.values()))
    if unknown:
        raise InvalidArgumentError(f"mix: there is no RPC {unknown[0]!r}")
    if not all(0 <= weight < math.inf for weight in mix.values()) or not any(mix.values()):
        raise InvalidArgumentError("mix: weights are 0 or more, and one of them at least is more than 0")
    if math.isinf(sum(mix.values())):
        raise InvalidArgumentError("mix: weights are too large to be added up")
