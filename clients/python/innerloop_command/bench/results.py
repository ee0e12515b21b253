"""The figures of a run."""

import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from innerloop.models import Model
from innerloop_command.bench.histogram import Histogram
from innerloop_command.bench.measurements import EVICTED, Measurements, RpcMeasurements
from innerloop_command.bench.server_usage import ServerUsage
from innerloop_command.bench.settings import BenchSettings, Load, OpenLoop, Rpc
from innerloop_command.bench.workload import TaskSize

CPU_LIMIT = 0.9
"""Above this share of the CPU that it can use, the load generator's own delays become a part of the latencies."""


@dataclass(frozen=True)
class LoadResult:
    """The figures of one load.

    Attributes:
        load: the load.
        seconds: for how long it was measured.
        measured: what all processes together counted and timed.
        cpu_available: cores that the processes which make the load can use; each uses at most one.
        server: what the server did at the same time.
    """

    load: Load
    seconds: float
    measured: Measurements
    cpu_available: int
    server: ServerUsage

    @property
    def rpcs(self) -> Mapping[Rpc, RpcMeasurements]:
        """Outcomes, latencies and phases by RPC."""
        return self.measured.rpcs

    @property
    def throughput(self) -> float:
        """Answers per second, of all RPCs."""
        return sum(map(self.rate, self.rpcs))

    def rate(self, rpc: Rpc) -> float:
        """Answers per second, of one RPC."""
        return self.rpcs[rpc].answered / self.seconds

    @property
    def failures(self) -> Counter[str]:
        """Requests that failed by gRPC status, and those that were dropped. Evictions are no failures."""
        failed: Counter[str] = Counter({"dropped": self.measured.dropped})
        for measured in self.rpcs.values():
            failed += measured.outcomes
        failed += self.measured.remade
        return Counter({what: count for what, count in failed.items() if count and what not in ("OK", EVICTED)})

    @property
    def cpu_cores(self) -> float:
        """CPU seconds per second that making the load took."""
        return self.measured.cpu_seconds / self.seconds

    @property
    def measures_itself(self) -> bool:
        """Whether the load generator had too little CPU for its latencies to be the server's."""
        return self.cpu_cores > CPU_LIMIT * self.cpu_available

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "load": {"loop": "open" if isinstance(self.load, OpenLoop) else "closed", **asdict(self.load)},
            "seconds": self.seconds,
            "throughput_per_s": self.throughput,
            "rpcs": {
                rpc: {
                    "requests": measured.requests,
                    "throughput_per_s": self.rate(rpc),
                    "outcomes": dict(measured.outcomes),
                    "latency": _distribution(measured.latency),
                    "phases": {phase: _distribution(times) for phase, times in measured.phases.items()},
                }
                for rpc, measured in self.rpcs.items()
            },
            "dropped": self.measured.dropped,
            "failures": dict(self.failures),
            "adaptations_made_again": dict(self.measured.remade),
            "lag": _distribution(self.measured.lag),
            "generator": {
                "cpu_cores": self.cpu_cores,
                "cpu_available": self.cpu_available,
                "measures_itself": self.measures_itself,
            },
            "server": asdict(self.server),
        }


@dataclass(frozen=True)
class BenchResult:
    """The figures of a run.

    Attributes:
        settings: of the run.
        model: that was asked.
        task: size of its tasks.
        loads: one result for each load.
        calls: all calls of AdaptationService, by RPC and gRPC status, with those before and after the loads.
        machine: that made the load.
    """

    settings: BenchSettings
    model: Model
    task: TaskSize
    loads: Sequence[LoadResult]
    calls: Mapping[tuple[str, str], int]
    machine: Mapping[str, Any]

    @property
    def failures(self) -> Counter[str]:
        """Requests of all loads that failed, by gRPC status, and those that were dropped."""
        return sum((load.failures for load in self.loads), Counter())

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file: figures, and histograms from which all others follow."""
        apart = ("loads", "mix", "tls", "api_key", "model")
        settings = {name: value for name, value in vars(self.settings).items() if name not in apart}
        return {
            "model": {"name": self.model.name, "version": self.model.version, "method": self.model.method},
            "task": asdict(self.task),
            "settings": {**settings, "tls": bool(self.settings.tls), "mix": dict(self.settings.mix)},
            "machine": dict(self.machine),
            "loads": [load.as_dict() for load in self.loads],
            "calls": [{"rpc": rpc, "status": status, "count": n} for (rpc, status), n in sorted(self.calls.items())],
        }


def _distribution(histogram: Histogram) -> dict[str, Any]:
    return {**histogram.summary(), "hdr_histogram_us": histogram.encode()}


def describe_machine() -> dict[str, Any]:
    """Processor, cores, versions and time of the machine that makes the load."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "grpcio": version("grpcio"),
        "innerloop": version("innerloop"),
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())
