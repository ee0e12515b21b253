"""The load generator: measures latency and throughput of a running server. Needs the extra `bench`."""

from innerloop.bench.histogram import Histogram
from innerloop.bench.results import BenchResult, LoadResult
from innerloop.bench.run import run_bench
from innerloop.bench.settings import BenchSettings, ClosedLoop, OpenLoop, parse_mix

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
