"""Many live adaptations: do they fit into the memory they were given, what does each cost, and do they all answer?

    python benchmarks/memory/run.py [--device auto|cpu|cuda] [--scale 1.0]
                                    [--clients 32] [--frontends 0] [--processes 1]

100,000 adaptations of a model that adapts its head, and 10,000 of one that adapts all weights of a Conv4-64, each on a
server whose budget is what their states take and a tenth more; then Predict requests over all of them. Resident memory
is read before and after. `--scale 0.01` makes a hundredth of them, to try it out. Writes results.json, or
results-cuda.json.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from innerloop_command.bench import BenchSettings, ClosedLoop, run_bench
from innerloop_command.server_process import ServerProcess

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine, results_file
from untrained import SPECS, write_bundles

ADAPTATIONS = {"anil": 100_000, "maml": 10_000}
ROOM = 1.1
SECONDS = 10.0


def main() -> None:
    """Measure both models and write results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--frontends", type=int, default=0, help="of the server")
    parser.add_argument("--processes", type=int, default=1, help="that make the load")
    given = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        # One inner step: what a state takes does not depend on how many led to it.
        specs = {name: replace(spec, settings={"steps": 1, "rate": 0.01}) for name, spec in SPECS.items()}
        for name, count in ADAPTATIONS.items():
            models = write_bundles(Path(folder) / name, {name: specs[name]})
            results[name] = _measure(models, name, round(count * given.scale), given)
            print(json.dumps({name: results[name]}, indent=2))
    settings = {"clients": given.clients, "frontends": given.frontends, "processes": given.processes}
    content = {"machine": describe_machine(), "settings": settings, "results": results}
    results_file(__file__, given.device).write_text(json.dumps(content, indent=2) + "\n")


def _measure(models: Path, name: str, count: int, given: argparse.Namespace) -> dict[str, Any]:
    settings = {"device": given.device, "frontends": given.frontends}
    with ServerProcess(models, **settings) as server:
        size = _bench(server, name, 1, 1.0, given).loads[0].server.adaptations_bytes or 0
    budget = int(size * count * ROOM)
    with ServerProcess(models, **settings, adaptation_bytes=budget, time_to_live=86400) as server:
        _bench(server, name, 1, 1.0, given)
        process = psutil.Process(server.process.pid)
        before = process.memory_info().rss
        watched: list[int] = []

        def watch(*_: object) -> None:
            watched.append(process.memory_info().rss)

        result = _bench(server, name, count, SECONDS, given, watch).loads[0]
    answered = result.rpcs["Predict"]
    return {
        "adaptations": count,
        "held": result.server.adaptations_held,
        "evicted": result.server.adaptations_evicted,
        "state_bytes": size,
        "budget_bytes": budget,
        "resident_bytes_each": (max(watched) - before) / count,
        "predict_per_second": result.throughput,
        "predict_outcomes": dict(answered.outcomes),
        "predict_p50_ms": 1e3 * answered.latency.percentile(50),
    }


def _bench(
    server: ServerProcess,
    name: str,
    adaptations: int,
    seconds: float,
    given: argparse.Namespace,
    progress: Any = None,
) -> Any:
    settings = BenchSettings(
        name,
        [ClosedLoop(given.clients)],
        server=server.target,
        mix={"Predict": 1},
        adaptations=adaptations,
        queries=5,
        warm_up=1.0,
        duration=seconds,
        processes=given.processes,
        metrics_url=server.metrics_url,
    )
    return run_bench(settings, progress)


if __name__ == "__main__":
    main()
