"""Cost of lasting adaptations: a written Adapt, a restart with many of them, and one that has left the memory.

    python benchmarks/durability/run.py [--only restart] [--rounds 3] [--seconds 5.0] [--kept 100000]

Three measurements, of which `--only` takes one, on models of Conv4-64: `anil`, whose states are small and kept, and
`maml`, whose states are large and computed again from their examples.

- Adapt by 1 and by 32 clients, on servers that keep adaptations in memory, that write behind, and that write through,
  by turns, so that each round compares them under the same conditions.
- A server with so many adaptations in its file beside one with none: seconds from its start until a client that asks
  again and again has the answer to its first Predict, of an adaptation that is not in memory, and until the server is
  ready with all its workers. Beside them in each round, seconds until a Python has imported PyTorch and gRPC, which no
  server does without.
- Predict with one client: of an adaptation in memory, of one that is not, and beside them AdaptPredict, which is what a
  caller does who has nothing kept.

Writes results.json, in which measurements that were not taken stay as they were.
"""

import argparse
import asyncio
import json
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np

from innerloop import Client, InnerloopError
from innerloop_command.bench import BenchSettings, ClosedLoop, run_bench
from innerloop_command.server_process import ServerProcess
from innerloop_server.adaptations.sealing import (
    Part,
    seal,
    seal_recipe,
    seal_record,
    unseal,
    unseal_recipe,
    unseal_record,
)
from innerloop_server.adaptations.stores.interface import StoredAdaptation
from innerloop_server.adaptations.stores.sqlite import SqliteStore

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine
from untrained import QUERIES, SPECS, WAYS, write_bundles

MODELS = ("anil", "maml")
CLIENTS = (1, 32)
DURABILITIES = ("memory", "none", "behind", "through")
FILLED_TOGETHER = 2000
MISSES = 60
ASK_SECONDS = 0.02


def main() -> None:
    """Measure all three and write results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--kept", type=int, default=100_000)
    parser.add_argument("--only", choices=("adapt", "restart", "miss"))
    given = parser.parse_args()
    file = Path(__file__).with_name("results.json")
    results: dict[str, Any] = json.loads(file.read_text())["results"] if file.is_file() and given.only else {}
    with tempfile.TemporaryDirectory(prefix="durability-") as scratch:
        folder = Path(scratch)
        models = write_bundles(folder / "models", {name: SPECS[name] for name in MODELS})
        for name, measure in (("adapt", _adapt), ("restart", _restart), ("miss", _miss)):
            if given.only not in (None, name):
                continue
            results[name] = measure(models, folder, given)
            print(json.dumps({name: results[name]}, indent=2), flush=True)
    settings = {"rounds": given.rounds, "seconds": given.seconds, "kept": given.kept}
    content = {"machine": describe_machine(), "settings": settings, "results": results}
    file.write_text(json.dumps(content, indent=2) + "\n")


def _adapt(models: Path, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds and throughput of Adapt, by model, durability and clients: each round, and the medians."""
    rounds: list[dict[str, Any]] = []
    for number in range(given.rounds):
        measured: dict[str, Any] = {}
        # Backwards in every other round: a machine may be faster or slower as time goes by.
        for durability in DURABILITIES[:: -1 if number % 2 else 1]:
            settings = {"store": "memory"}
            if durability != "memory":
                settings = {"store": f"sqlite:{folder}/adapt-{number}-{durability}", "durability": durability}
            with ServerProcess(models, **settings) as server:
                for model in MODELS:
                    for clients in CLIENTS:
                        measured[f"{model} {clients} {durability}"] = _bench(server, model, clients, given.seconds)
        rounds.append(measured)
    cases = [f"{model} {clients}" for model in MODELS for clients in CLIENTS]
    return {"median": {case: _beside_memory(case, rounds) for case in cases}, "rounds": rounds}


def _beside_memory(case: str, rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds of each durability, and of what it adds to memory in the same round."""
    summary = {}
    for durability in DURABILITIES:
        pairs = [(each[f"{case} {durability}"], each[f"{case} memory"]) for each in rounds]
        summary[durability] = {
            "p50_ms": median(own["p50_ms"] for own, _ in pairs),
            "of_memorys_throughput": median(own["per_second"] / memory["per_second"] for own, memory in pairs),
            "more_than_memory_ms": median(own["p50_ms"] - memory["p50_ms"] for own, memory in pairs),
        }
    return summary


def _bench(server: ServerProcess, model: str, clients: int, seconds: float) -> dict[str, float]:
    settings = BenchSettings(
        model,
        [ClosedLoop(clients)],
        server=server.target,
        mix={"Adapt": 1},
        warm_up=1.0,
        duration=seconds,
        metrics_url=server.metrics_url,
    )
    result = run_bench(settings).loads[0]
    latency = result.rpcs["Adapt"].latency
    return {
        "per_second": result.throughput,
        "p50_ms": 1e3 * latency.percentile(50),
        "p99_ms": 1e3 * latency.percentile(99),
    }


def _restart(models: Path, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """A server that starts on an empty file, and one that starts on a full one, by turns."""
    full = folder / "full"
    with ServerProcess(models, store=f"sqlite:{full}") as server, Client(server.target) as client:
        pattern = client.adapt("anil", *_support(0)).id
    filling = time.perf_counter()
    ids = asyncio.run(_fill(full, pattern, given.kept))
    filling = time.perf_counter() - filling
    rounds = []
    for number in range(given.rounds):
        measured = {}
        for name, store in (("empty", folder / f"empty-{number}"), ("full", full)):
            if name == "empty":
                with ServerProcess(models, store=f"sqlite:{store}") as server, Client(server.target) as client:
                    asked = client.adapt("anil", *_support(1)).id
            else:
                asked = ids[number * 1000 % len(ids)]
            measured[name] = _start(models, store, asked)
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch, grpc"], check=True)
        measured["imports"] = {"imports_s": time.perf_counter() - started}
        rounds.append(measured)
    summary = {
        name: {figure: median(each[name][figure] for each in rounds) for figure in rounds[0][name]}
        for name in rounds[0]
    }
    return {
        "kept": len(ids),
        "file_bytes": full.stat().st_size,
        "filled_s": filling,
        "median": summary,
        "rounds": rounds,
    }


def _start(models: Path, store: Path, asked: str) -> dict[str, float]:
    """Seconds from the start of a server until it has answered a Predict, and until it is ready."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    server, query = ServerProcess(models, store=f"sqlite:{store}", port=port), _images(QUERIES, 2)
    started = time.perf_counter()
    server.launch()
    answered = None
    while answered is None:
        # A client anew each time: one that was refused waits longer and longer before it connects again.
        with Client(f"localhost:{port}", retries=0) as client, suppress(InnerloopError):
            client.get_adaptation(asked, timeout=5).predict(query, timeout=5)
            answered = time.perf_counter() - started
        time.sleep(ASK_SECONDS)
    server.wait_until_ready()
    ready = time.perf_counter() - started
    server.stop()
    return {"first_predict_s": answered, "ready_s": ready}


async def _fill(path: Path, pattern_id: str, count: int) -> list[str]:
    """Put copies of an adaptation into a file under ids of their own; returns these."""
    store = SqliteStore(path)
    await store.open()
    pattern = await store.get(pattern_id)
    assert pattern is not None
    record = unseal_record(pattern_id, pattern.summary.record)
    state = unseal(Part.STATE, pattern_id, pattern.state)
    recipe = unseal_recipe(pattern_id, pattern.recipe)
    ids = [secrets.token_urlsafe(24) for _ in range(count)]
    for start in range(0, count, FILLED_TOGETHER):
        writes = []
        for number, each in enumerate(ids[start : start + FILLED_TOGETHER], start):
            copy = msgspec.structs.replace(record, id=each, created_ns=record.created_ns + number + 1, request_id="")
            summary = pattern.summary._replace(
                id=each, created_ns=copy.created_ns, request_id="", record=seal_record(copy)
            )
            parts = seal(Part.STATE, each, state), seal_recipe(each, recipe)
            writes.append(store.add(StoredAdaptation(summary, *parts)))
        await asyncio.gather(*writes)
    await store.close()
    return ids


def _miss(models: Path, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of Predict on hit and miss, and of AdaptPredict, by model; all in each round."""
    del given
    measured = {}
    for model in MODELS:
        # Room for one state: of two that are asked by turns, none is ever in memory.
        with ServerProcess(models, store=f"sqlite:{folder}/miss-{model}") as server, Client(server.target) as client:
            size = client.adapt(model, *_support(0)).info.size_bytes
        settings = {"store": f"sqlite:{folder}/misses-{model}", "adaptation_bytes": size * 3 // 2}
        with ServerProcess(models, **settings) as server, Client(server.target, readapt=False) as client:
            times = _times(client, model)
            measured[model] = {
                "state_bytes": size,
                **{f"{name}_p50_ms": median(taken) for name, taken in times.items()},
                "miss_of_adapt_predict": median(
                    miss / anew for miss, anew in zip(times["miss"], times["adapt_predict"], strict=True)
                ),
            }
    return measured


def _times(client: Client, model: str) -> dict[str, list[float]]:
    """Milliseconds of each kind of call, one after another."""
    pair, query = [client.adapt(model, *_support(seed)) for seed in range(2)], _images(QUERIES, 9)
    times: dict[str, list[float]] = {"hit": [], "miss": [], "adapt_predict": []}
    for number in range(MISSES):
        ask = partial(pair[number % 2].predict, query)
        times["miss"].append(_milliseconds(ask))
        times["hit"].append(_milliseconds(ask))
        times["adapt_predict"].append(
            _milliseconds(partial(client.adapt_predict, model, *_support(number), query=query))
        )
    return times


def _milliseconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - started)


def _support(seed: int) -> tuple[Any, list[str]]:
    return _images(WAYS, seed), [f"class {way}" for way in range(WAYS)]


def _images(count: int, seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (count, 1, 28, 28), dtype=np.uint8)


if __name__ == "__main__":
    main()
