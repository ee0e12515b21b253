"""The load generator: measures latency and throughput of a running server. Needs the extra `bench`."""

from innerloop_command.bench.histogram import Histogram
from innerloop_command.bench.results import BenchResult, LoadResult
from innerloop_command.bench.run import run_bench
from innerloop_command.bench.settings import BenchSettings, ClosedLoop, OpenLoop, parse_mix

__all__ = [
    "BenchResult",
    "BenchSettings",
    "ClosedLoop",
    "Histogram",
    "LoadResult",
    "OpenLoop",
    "parse_mix",
    "run_bench",
]
