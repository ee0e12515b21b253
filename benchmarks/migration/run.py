"""Adaptations that move to another version of their model: how many a second, and what others notice of it.

    python benchmarks/migration/run.py [--model anil] [--count 10000] [--seconds 10] [--clients 4]

Makes adaptations on the first version of a model, kept in SQLite with --durability through. Then others predict in a
closed loop on a model of their own (protonet), first alone, then while all adaptations move to the second version. What
is left then moves with nobody else there, and at the end a sample of the ids answers. The load is made on the same
machine. Writes results.json beside this file, where there is a GPU results-cuda.json.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine, results_file
from untrained import SPECS, WAYS, initial_params, write_bundle

from innerloop import AsyncClient, Client, Migration
from innerloop_command.bench import BenchSettings, ClosedLoop, run_bench
from innerloop_command.server_process import ServerProcess
from innerloop_learner import build_learner

MODEL, OTHERS, OTHERS_METHOD = "moving", "others", "protonet"
MAKERS, SAMPLE, POLL_SECONDS = 32, 100, 0.1


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="anil", choices=sorted(SPECS))
    parser.add_argument("--count", type=int, default=10_000, help="adaptations to move")
    parser.add_argument("--seconds", type=float, default=10.0, help="of the others' load, besides warming up")
    parser.add_argument("--clients", type=int, default=4, help="of the others, in a closed loop")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="migration-") as scratch:
        folder = Path(scratch)
        models = _write_models(folder / "models", given.model)
        with ServerProcess(models, store=f"sqlite:{folder / 'store'}", admin=True) as server:
            results = _measure(server, given.count, given.seconds, given.clients)
    content = {"machine": describe_machine(), **vars(given), "results": results}
    results_file(__file__, "auto").write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps(results, indent=2))
    sys.exit(0 if results["migration"]["migrated"] == given.count and not results["unanswered"] else 1)


def _write_models(folder: Path, method: str) -> Path:
    """Two versions of one model, the first of which is stable, and a model for the others."""
    spec = SPECS[method]
    for version in (1, 2):
        params = build_learner(spec).init(torch.Generator().manual_seed(version))
        write_bundle(folder / MODEL / str(version), spec, params)
    (folder / MODEL / "aliases.toml").write_text('stable = "1"\n')
    write_bundle(folder / OTHERS, SPECS[OTHERS_METHOD], initial_params(SPECS[OTHERS_METHOD]))
    return folder


def _measure(server: ServerProcess, count: int, seconds: float, clients: int) -> dict[str, Any]:
    ids = asyncio.run(_adapt(server.target, count))
    alone = _load(server, seconds, clients)
    with Client(server.target) as client:
        started = time.perf_counter()
        client.migrate(MODEL, to="2")
        beside = _load(server, seconds, clients)
        meanwhile, beside_seconds = client.migration(MODEL), time.perf_counter() - started
        resumed = time.perf_counter()
        ended = _wait(client)
        rest_seconds = time.perf_counter() - resumed
        unanswered = _unanswered(client, ids)
    rest = ended.migrated - meanwhile.migrated
    return {
        "others_alone": alone,
        "others_beside": beside,
        "outlasted_the_others_load": meanwhile.state == "running",
        "moved_per_s_beside_others": meanwhile.migrated / beside_seconds if meanwhile.state == "running" else None,
        "moved_per_s_alone": rest / rest_seconds if rest else None,
        "migration": vars(ended),
        "unanswered": unanswered,
    }


async def _adapt(target: str, count: int) -> list[str]:
    """Make so many adaptations, several at a time; returns their ids."""
    labels = [f"class {way}" for way in range(WAYS)]
    random = np.random.default_rng(0)
    examples = [random.integers(0, 256, (WAYS, 1, 28, 28), np.uint8) for _ in range(100)]
    ids: list[str] = []
    async with AsyncClient(target) as client:
        numbers = iter(range(count))

        async def make() -> None:
            for number in numbers:
                adaptation = await client.adapt(MODEL, examples[number % len(examples)], labels)
                ids.append(adaptation.info.id)

        await asyncio.gather(*(make() for _ in range(MAKERS)))
    return ids


def _load(server: ServerProcess, seconds: float, clients: int) -> dict[str, Any]:
    """Answers a second and latencies in milliseconds of all others."""
    settings = BenchSettings(
        model=OTHERS,
        loads=(ClosedLoop(clients),),
        server=server.target,
        mix={"Predict": 1.0},
        duration=seconds,
    )
    load = run_bench(settings).loads[0]
    measured = load.rpcs["Predict"]
    return {
        "answers_per_s": load.throughput,
        "outcomes": dict(measured.outcomes),
        "latency": measured.latency.summary(),
        "generator_too_slow": load.measures_itself,
    }


def _wait(client: Client) -> Migration:
    while (progress := client.migration(MODEL)).state == "running":
        time.sleep(POLL_SECONDS)
    return progress


def _unanswered(client: Client, ids: list[str]) -> int:
    """How many of a sample of adaptations are not on the second version, or do not answer."""
    (second,) = [version.version for version in client.model(MODEL).versions if version.folder == "2"]
    queries = np.zeros((1, 1, 28, 28), np.uint8)
    missing = 0
    for each in ids[:: max(len(ids) // SAMPLE, 1)]:
        adaptation = client.get_adaptation(each)
        answered = len(adaptation.predict(queries)) == 1
        missing += not answered or adaptation.info.model_version != second
    return missing


if __name__ == "__main__":
    main()
