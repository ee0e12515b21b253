"""The counts and times of one process; the figures of several processes can be added up."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Self

from innerloop.timings import Timings
from innerloop_command.bench.histogram import Histogram
from innerloop_command.bench.settings import Rpc

PHASES = (*Timings._fields, "network and client")
"""Parts of the time that a request takes: those that the server reports, and the rest."""

EVICTED = "EVICTED"
"""Outcome of a Predict whose adaptation the server had dropped because it was short of memory."""

TIMED = frozenset({"OK", "DEADLINE_EXCEEDED"})
"""Outcomes whose latencies count. Requests that ran out of time do: without the slowest, a server would look fast."""


@dataclass
class RpcMeasurements:
    """One RPC.

    Attributes:
        outcomes: requests that were due while it was measured, by what became of them: OK, EVICTED, or a gRPC status.
        answered: answers that came while it was measured.
        latency: of requests by outcome OK or DEADLINE_EXCEEDED; in the open loop from the moment they were due.
        phases: time of each of `PHASES` of OK requests. "network and client" begins when a request is sent.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    answered: int = 0
    latency: Histogram = field(default_factory=Histogram)
    phases: dict[str, Histogram] = field(default_factory=lambda: {phase: Histogram() for phase in PHASES})

    @property
    def requests(self) -> int:
        """Requests that were due while it was measured."""
        return self.outcomes.total()

    def record(self, outcome: str, due: float, sent: float, done: float, timings: Timings | None) -> None:
        """Add a request that was due while it was measured.

        Args:
            outcome: what became of it.
            due: when it should have been sent, in seconds of one clock.
            sent: when it was.
            done: when its answer came.
            timings: what the answer said of the server's time, if there was one.
        """
        self.outcomes[outcome] += 1
        if outcome in TIMED:
            self.latency.record(done - due)
        if timings is not None:
            for phase, seconds in zip(PHASES, (*timings, done - sent - sum(timings)), strict=True):
                self.phases[phase].record(seconds)

    def add(self, other: "RpcMeasurements") -> None:
        """Add what another process measured."""
        self.outcomes += other.outcomes
        self.answered += other.answered
        self.latency.add(other.latency)
        for phase, histogram in self.phases.items():
            histogram.add(other.phases[phase])


@dataclass
class Measurements:
    """One load.

    Attributes:
        rpcs: by name; those of the mix.
        dropped: requests that were due while it was measured and not sent, because too many were under way.
        lag: open loop: from the moment that each request was due to the moment it was sent.
        cpu_seconds: that the processes which made the load used, while it was measured.
        remade: attempts to make a dropped adaptation again, by gRPC status, the warm-up included.
        calls: all calls of this load by RPC and gRPC status, the warm-up included.
    """

    rpcs: dict[Rpc, RpcMeasurements]
    dropped: int = 0
    lag: Histogram = field(default_factory=Histogram)
    cpu_seconds: float = 0.0
    remade: Counter[str] = field(default_factory=Counter)
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, other: Self) -> None:
        """Add what another process measured."""
        for rpc, measured in self.rpcs.items():
            measured.add(other.rpcs[rpc])
        self.dropped += other.dropped
        self.lag.add(other.lag)
        self.cpu_seconds += other.cpu_seconds
        self.remade += other.remade
        self.calls += other.calls
