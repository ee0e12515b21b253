"""What a server costs on top of computing: throughput, latency at one client, and latency under a steady load.

    python benchmarks/engine/run.py [--device auto|cpu|cuda] [--seconds 8] [--clients 32]

For each model, bare computing (bare.py) and serving take turns, so that drift of the machine hits both:

- adaptations a second of many clients, against batches of the same size computed bare;
- medians of Adapt and of Predict of one client, against the same computed bare;
- AdaptPredict requests that arrive at random, at 70% of what many clients got: p50 and p99 from when they were due.

Load comes from `innerloop bench`'s own code. Writes results.json and prints a table.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from innerloop.bench import BenchSettings, run_bench
from innerloop.bench.settings import ClosedLoop, Load, OpenLoop
from innerloop_server.process import ServerProcess

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine
from untrained import QUERIES, SPECS, write_bundles

RESULTS = Path(__file__).with_name("results.json")
ROUNDS = 3
STEADY = 0.7
"""Share of the capacity at which latency under a steady load is measured."""


def main() -> None:
    """Measure every model and write results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--clients", type=int, default=32)
    given = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory(prefix="engine-") as folder:
        models = write_bundles(Path(folder))
        with ServerProcess(models, device=given.device) as server:
            for name in SPECS:
                measured = Measuring(server, models / name, given.device, given.seconds)
                results[name] = {
                    "throughput": measured.throughput(given.clients),
                    "one_client": measured.one_client(),
                    "steady": measured.steady(given.clients),
                }
                print(_line(name, results[name]))
    RESULTS.write_text(json.dumps({"machine": describe_machine(), "results": results}, indent=2) + "\n")


class Measuring:
    """Measures one model, bare and served."""

    def __init__(self, server: ServerProcess, bundle: Path, device: str, seconds: float) -> None:
        self._server = server
        self._bundle = bundle
        self._device = device
        self._seconds = seconds

    def throughput(self, clients: int) -> dict[str, Any]:
        """Adaptations a second; bare batches have the mean size of the served ones."""
        rounds = []
        for _ in range(ROUNDS):
            served = self._bench({"Adapt": 1}, ClosedLoop(clients))
            size = max(round(served.server.batch_size["adapt"]), 1)
            bare = self._bare("batches", "--tasks", str(size))["adaptations_per_second"]
            rounds.append({"served": served.throughput, "bare": bare, "batch": size})
        best = {side: max(one[side] for one in rounds) for side in ("served", "bare")}
        return {"clients": clients, "rounds": rounds, **best, "ratio": best["served"] / best["bare"]}

    def one_client(self) -> dict[str, Any]:
        """Median milliseconds of each operation, and by how much serving adds to them."""
        rounds = []
        for _ in range(ROUNDS):
            bare = self._bare("single")
            served = self._bench({"Adapt": 1, "Predict": 1}, ClosedLoop(1))
            p50 = {rpc: 1e3 * served.rpcs[rpc].latency.percentile(50) for rpc in ("Adapt", "Predict")}
            rounds.append({"bare": [bare["adapt_p50_ms"], bare["predict_p50_ms"]], "served": list(p50.values())})
        medians = {side: [median(one[side][i] for one in rounds) for i in range(2)] for side in ("bare", "served")}
        added = [served - bare for served, bare in zip(medians["served"], medians["bare"], strict=True)]
        return {"operations": ["adapt", "predict"], "rounds": rounds, **medians, "added_ms": added}

    def steady(self, clients: int) -> dict[str, Any]:
        """Latency of requests that arrive at random."""
        capacity = self._bench({"AdaptPredict": 1}, ClosedLoop(clients)).throughput
        result = self._bench({"AdaptPredict": 1}, OpenLoop(STEADY * capacity), 2 * self._seconds)
        latency = result.rpcs["AdaptPredict"].latency
        p50, p99 = (1e3 * latency.percentile(share) for share in (50, 99))
        return {
            "capacity": capacity,
            "rate": STEADY * capacity,
            "answered": result.throughput,
            "p50_ms": p50,
            "p99_ms": p99,
            "ratio": p99 / p50,
        }

    def _bench(self, mix: dict[str, float], load: Load, seconds: float | None = None) -> Any:
        settings = BenchSettings(
            self._bundle.name,
            [load],
            server=self._server.target,
            mix=mix,
            adaptations=16,
            queries=QUERIES,
            duration=seconds or self._seconds,
            metrics_url=self._server.metrics_url,
        )
        return run_bench(settings).loads[0]

    def _bare(self, *arguments: str) -> dict[str, float]:
        command = [sys.executable, str(Path(__file__).with_name("bare.py")), str(self._bundle), *arguments]
        command += ["--device", self._device, "--seconds", str(self._seconds)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _line(name: str, result: dict[str, Any]) -> str:
    throughput, one, steady = result["throughput"], result["one_client"], result["steady"]
    return (
        f"{name:9} {throughput['served']:6.0f} of {throughput['bare']:6.0f} adaptations/s ({throughput['ratio']:.0%}); "
        f"one client: Adapt {one['served'][0]:.2f} ms (+{one['added_ms'][0]:.2f}), "
        f"Predict {one['served'][1]:.2f} ms (+{one['added_ms'][1]:.2f}); "
        f"at {steady['rate']:.0f}/s: p50 {steady['p50_ms']:.1f} ms, p99 {steady['p99_ms']:.1f} ms "
        f"({steady['ratio']:.1f}x)"
    )


if __name__ == "__main__":
    main()
