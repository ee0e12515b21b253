"""The load generator: measures latency and throughput of a running server. Needs the extra `bench`.

`run` leads a measurement with `settings`: it makes the adaptations that Predict asks (`live_adaptations`) and starts
processes (`workers`), of which each sends requests (`load_generator`, `sender`) that are prepared (`workload`) and
chosen at random (`request_sampling`), and times the answers (`measurements`, `histogram`). Meanwhile it looks at the
server (`server_usage`). `results` are for programs, `report` and `plot` for people.
"""

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
