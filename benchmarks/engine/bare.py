"""Computing without a server, in a process set up as `innerloop serve` sets up its own.

    python benchmarks/engine/bare.py BUNDLE single [--device auto] [--threads 1]
    python benchmarks/engine/bare.py BUNDLE batches [--tasks 8] [--device auto] [--seconds 5]

`single` reads numbers, a line each, and prints the seconds that so many Adapts and Predicts took, one after the other;
`batches` prints adaptations a second of batches of that size (the largest that the engine makes, if not given), as many
side by side as the device takes.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from pathlib import Path

from innerloop_server.commands import SPINS

os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # before PyTorch is imported

import numpy as np

from innerloop_learner.host_memory import keep_freed_memory
from innerloop_server.domain.tasks import SupportSet
from innerloop_server.engine.interface import AdaptBatch, Engine, LoadedModel
from innerloop_server.engine.pytorch.engine import TorchEngine, TorchSettings
from innerloop_server.engine.trial_task import trial_support
from innerloop_server.scheduling.lanes import Lanes

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from untrained import QUERIES

START_SECONDS, STOP_SECONDS = 5.0, 5.0


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("what", choices=("single", "batches"))
    parser.add_argument("--tasks", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    keep_freed_memory()
    engine = TorchEngine(TorchSettings(given.device, given.threads, precision=given.precision))
    model = engine.load(given.bundle.name, given.bundle)
    model.prepare()
    if given.what == "batches":
        tasks = given.tasks or engine.largest_batch
        rate = asyncio.run(_batches(engine, model, tasks, given.seconds))
        print(json.dumps({"tasks": tasks, "adaptations_per_second": rate}))
        return
    print(flush=True)  # it is ready
    for line in sys.stdin:
        print(json.dumps(_single(model, int(line))), flush=True)


def _single(model: LoadedModel, count: int) -> dict[str, list[float]]:
    support = trial_support(model.description)
    query = np.repeat(support.x, -(-QUERIES // support.size), axis=0)[:QUERIES]
    times: dict[str, list[float]] = {"adapt": [], "predict": []}
    for _ in range(count):
        start = time.perf_counter()
        states = [adapted.state for adapted in _adapt(model, [support])]
        adapted = time.perf_counter()
        model.predict(states, [query])
        times["adapt"].append(adapted - start)
        times["predict"].append(time.perf_counter() - adapted)
    return times


async def _batches(engine: Engine, model: LoadedModel, tasks: int, seconds: float) -> float:
    description = model.description
    support = trial_support(description)
    steps, width = description.traits.default_steps, description.head_width(support.ways)
    batch = AdaptBatch([support] * tasks, steps, width)
    lanes = Lanes(engine.threads, engine.start_worker)
    await lanes.start()
    start, done = time.perf_counter() + START_SECONDS, 0

    async def work() -> None:
        nonlocal done
        lane = await lanes.take()
        while time.perf_counter() < start:  # lanes are slower at first
            await lane.compute(model, batch)
        while time.perf_counter() < start + seconds:
            await lane.compute(model, batch)
            done += tasks
        lanes.give_back(lane)

    await asyncio.gather(*(work() for _ in range(engine.threads)))
    rate = done / (time.perf_counter() - start)
    await lanes.stop(STOP_SECONDS)
    return rate


def _adapt(model: LoadedModel, tasks: list[SupportSet]) -> list[object]:
    description = model.description
    return list(model.adapt(tasks, description.traits.default_steps, description.head_width(tasks[0].ways)))


if __name__ == "__main__":
    main()
