"""Cost of a server on top of computing: throughput, latency at one client, and latency under a steady load.

    python benchmarks/engine/run.py [--device auto|cpu|cuda] [--seconds 8] [--clients 32] [--frontends 1]
                                    [--processes 1] [--precision float32|tf32|bfloat16] [--out FILE]

For each model, bare computing (bare.py) and serving take turns, so that drift of the machine hits both:

- adaptations a second of many clients, on a server as it comes and on one with front ends, against batches of the same
  size computed bare; and what an adaptation takes of the processors, by who uses them;
- latency of Adapt and of Predict of one client that uses the SDK, against the same computed bare: both do so for a
  tenth of a second or more, many times in turn; and the same where both compute on one thread, since on a virtual
  machine two take half as long again when they get the halves of one core, whoever asked for them;
- AdaptPredict requests that arrive at random, at 70% of what many clients got: p50 and p99 from when they were due.

Load of many clients comes from `innerloop bench`'s own code. Writes results.json, of a GPU results-cuda.json, and
prints a table.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from innerloop import Client
from innerloop_command.bench import BenchSettings, run_bench
from innerloop_command.bench.settings import ClosedLoop, Load, OpenLoop
from innerloop_command.server_process import ServerProcess

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine, on_gpu, results_file
from untrained import IMAGES, QUERIES, SPECS, WAYS, write_bundles

BARE = Path(__file__).with_name("bare.py")
ROUNDS = 3
TURNS, TURN_SECONDS, TURN_REQUESTS = 48, 0.1, 15
"""One client's turn has at least this many requests. The first few are slow because they come after a pause, so the
first
turns are not counted."""

UNCOUNTED_TURNS, WARM_UP = 8, 20
REST_SECONDS = 10.0
"""Seconds of rest before one client is measured: a virtual machine that was busy stays slower for a while."""

STEADY = 0.7
"""Share of the capacity at which latency under a steady load is measured."""


def main() -> None:
    """Measure every model and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--frontends", type=int, default=1, help="of the second server")
    parser.add_argument("--processes", type=int, default=1, help="that make the load of many clients")
    parser.add_argument("--out", type=Path, help="JSON to write, if not the one beside this file")
    parser.add_argument("--precision", choices=("float32", "tf32", "bfloat16"), default="float32")
    given = parser.parse_args()
    settings, results = {"device": given.device, "precision": given.precision}, {}
    with tempfile.TemporaryDirectory(prefix="engine-") as folder:
        models = write_bundles(Path(folder))
        for name in SPECS:
            with ExitStack() as servers:
                plain, fronted = (
                    servers.enter_context(ServerProcess(models, **settings, frontends=frontends))
                    for frontends in (0, given.frontends)
                )
                measured = Measuring(plain, models / name, given)
                time.sleep(REST_SECONDS)
                results[name] = {
                    "one_client": measured.one_client(plain, []),
                    "bare_largest_batch": measured.bare_batches(None),
                    "throughput": measured.throughput(fronted),
                    "steady": measured.steady(),
                }
                if not on_gpu(given.device):
                    single = servers.enter_context(ServerProcess(models, **settings, threads=1))
                    time.sleep(REST_SECONDS)
                    results[name]["one_client_one_thread"] = measured.one_client(single, ["--threads", "1"])
                print(_line(name, results[name]), flush=True)
    settings |= {"clients": given.clients, "frontends": given.frontends, "processes": given.processes}
    content = {"machine": describe_machine(), "settings": settings, "results": results}
    (given.out or results_file(__file__, given.device)).write_text(json.dumps(content, indent=2) + "\n")


class Measuring:
    """Measures one model, bare and served."""

    def __init__(self, server: ServerProcess, bundle: Path, given: argparse.Namespace) -> None:
        self._server = server
        self._bundle = bundle
        self._given = given

    def bare_batches(self, tasks: int | None) -> dict[str, float]:
        """Adaptations a second in batches of so many tasks, or of as many as an engine computes together."""
        arguments = ["--seconds", str(self._given.seconds), *(["--tasks", str(tasks)] if tasks else [])]
        command = [*self._bare("batches"), *arguments]
        answer: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return answer

    def throughput(self, fronted: ServerProcess) -> dict[str, Any]:
        """Adaptations a second of both servers; bare batches have the mean size of the served ones."""
        servers = {"plain": self._server, "with_frontends": fronted}
        rounds: dict[str, list[dict[str, Any]]] = {kind: [] for kind in servers}
        for _ in range(ROUNDS):
            for kind, server in servers.items():
                served = self._bench(server, {"Adapt": 1}, ClosedLoop(self._given.clients))
                size = max(round(served.server.batch_size["adapt"]), 1)
                bare = self.bare_batches(size)["adaptations_per_second"]
                main, every = served.server.main_cpu_cores, served.server.cpu_cores
                cores = {"generator": served.cpu_cores, "main_process": main, "other_processes": every - main}
                rounds[kind].append(
                    {
                        "served": served.throughput,
                        "bare": bare,
                        "ratio": served.throughput / bare,
                        "batch": size,
                        "cpu_ms": {who: 1e3 * used / served.throughput for who, used in cores.items()},
                    }
                )
        return {
            kind: {side: median(one[side] for one in own) for side in ("served", "bare", "ratio")} | {"rounds": own}
            for kind, own in rounds.items()
        }

    def one_client(self, server: ServerProcess, bare_options: list[str]) -> dict[str, Any]:
        """Median milliseconds of each operation, and by how much serving adds to them."""
        added: dict[str, list[float]] = {"adapt": [], "predict": []}
        medians: dict[str, dict[str, list[float]]] = {"bare": {}, "served": {}}
        with self._bare_computing(bare_options) as bare, Client(server.target) as client:
            once = [sum(times) for times in zip(*bare(WARM_UP).values(), strict=True)]
            count = max(round(TURN_SECONDS / median(once)), TURN_REQUESTS)
            for turn in range(TURNS):
                sides = {"bare": bare(count), "served": self._served(client, count)}
                if turn < UNCOUNTED_TURNS:
                    continue
                for operation, differences in added.items():
                    taken = {side: 1e3 * median(times[operation]) for side, times in sides.items()}
                    differences.append(taken["served"] - taken["bare"])
                    for side, value in taken.items():
                        medians[side].setdefault(operation, []).append(value)
        return {
            "operations": list(added),
            "requests_in_a_turn": count,
            **{side: [median(values) for values in by_operation.values()] for side, by_operation in medians.items()},
            "added_ms": [median(differences) for differences in added.values()],
            "added_ms_quartiles": [np.percentile(values, (25, 75)).tolist() for values in added.values()],
        }

    def steady(self) -> dict[str, Any]:
        """Latency of requests that arrive at random."""
        capacity = self._bench(self._server, {"AdaptPredict": 1}, ClosedLoop(self._given.clients)).throughput
        load = OpenLoop(STEADY * capacity)
        result = self._bench(self._server, {"AdaptPredict": 1}, load, 2 * self._given.seconds)
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

    def _bench(self, server: ServerProcess, mix: dict[str, float], load: Load, seconds: float | None = None) -> Any:
        settings = BenchSettings(
            self._bundle.name,
            [load],
            server=server.target,
            mix=mix,
            adaptations=16,
            queries=QUERIES,
            duration=seconds or self._given.seconds,
            processes=self._given.processes,
            metrics_url=server.metrics_url,
            server_pid=server.process.pid,
        )
        return run_bench(settings).loads[0]

    def _served(self, client: Client, count: int) -> dict[str, list[float]]:
        """Seconds of so many Adapts and Predicts; what they keep is deleted, which is not timed."""
        images = np.random.default_rng(0).integers(0, 2, (QUERIES, *IMAGES.shape), np.uint8)
        labels = [str(label) for label in range(WAYS)]
        times: dict[str, list[float]] = {"adapt": [], "predict": []}
        for _ in range(count):
            start = time.perf_counter()
            adaptation = client.adapt(self._bundle.name, images[:WAYS], labels)
            adapted = time.perf_counter()
            adaptation.predict(images[:QUERIES])
            times["adapt"].append(adapted - start)
            times["predict"].append(time.perf_counter() - adapted)
            adaptation.delete()
        return times

    @contextmanager
    def _bare_computing(self, options: list[str]) -> Iterator[Any]:
        """A function that computes so many Adapts and Predicts in a process of their own and tells their seconds."""
        pipe = subprocess.PIPE
        with subprocess.Popen([*self._bare("single"), *options], stdin=pipe, stdout=pipe, text=True) as process:
            questions, answers = process.stdin, process.stdout
            assert questions is not None
            assert answers is not None
            answers.readline()  # it is ready

            def ask(count: int) -> dict[str, list[float]]:
                print(count, file=questions, flush=True)
                answer: dict[str, list[float]] = json.loads(answers.readline())
                return answer

            yield ask
            questions.close()

    def _bare(self, what: str) -> list[str]:
        return [
            sys.executable,
            str(BARE),
            str(self._bundle),
            what,
            "--device",
            self._given.device,
            "--precision",
            self._given.precision,
        ]


def _line(name: str, result: dict[str, Any]) -> str:
    plain, fronted = result["throughput"].values()
    one, steady = result["one_client"], result["steady"]
    one_thread = ""
    if "one_client_one_thread" in result:
        added = (f"{added:+.2f}" for added in result["one_client_one_thread"]["added_ms"])
        one_thread = f", on one thread {' / '.join(added)}"
    return (
        f"{name:9} {plain['served']:6.0f} of {plain['bare']:6.0f} adaptations/s ({plain['ratio']:.0%}), "
        f"{fronted['served']:6.0f} with front ends ({fronted['ratio']:.0%}); "
        f"one client: Adapt {one['served'][0]:.2f} ms (+{one['added_ms'][0]:.2f}), "
        f"Predict {one['served'][1]:.2f} ms (+{one['added_ms'][1]:.2f}){one_thread}; "
        f"at {steady['rate']:.0f}/s: p50 {steady['p50_ms']:.1f} ms, p99 {steady['p99_ms']:.1f} ms "
        f"({steady['ratio']:.1f}x)"
    )


if __name__ == "__main__":
    main()
