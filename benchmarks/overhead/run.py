"""What gRPC, batching and state cost one client: Adapt + Predict through a server against the same in-process.

    python benchmarks/overhead/run.py MODEL_FOLDER

MODEL_FOLDER holds bundles of image classifiers. Blocks of served and of in-process tasks alternate, so that both run
warm and drift of the machine hits both; uint8 images in, probabilities out, the same number of threads. A call that
computes nothing, and the server's own time for computing, tell where the difference comes from.

The in-process side is measured twice: as anybody calls a learner, and with freed memory kept as the server does, which
makes the same computation faster.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from innerloop import Adaptation, Client
from innerloop_learner import Query, Support
from innerloop_learner.bundle import Bundle, load_bundle
from innerloop_learner.host_memory import keep_freed_memory
from innerloop_server.process import ServerProcess

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine

RESULTS = Path(__file__).with_name("results.json")
WAYS, SHOTS, QUERIES = 5, 1, 5
BLOCKS, BLOCK = 20, 25
"""Alternations, and tasks in a block; the first block of each kind is a warm-up."""

THREADS = 1

Way = Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]
"""From support and query images to probabilities."""


def main() -> None:
    """Measure every model of the folder and write results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    models: Path = parser.parse_args().models
    torch.set_num_threads(THREADS)
    results: dict[str, dict[str, Any]] = {}
    with ServerProcess(models, threads=THREADS) as server, Client(server.target) as client:
        for setting in ("plain", "freed_memory_kept"):
            if setting == "freed_memory_kept":
                keep_freed_memory()
            for model in client.models():
                measured = _measure(client, model.name, load_bundle(models / model.name))
                results.setdefault(model.name, {})[setting] = measured
                print(
                    f"{model.name:10} {setting:18} in-process {measured['in_process_p50_ms']:.2f} ms, "
                    f"Adapt + Predict {measured['served_p50_ms']:.2f} ms, "
                    f"AdaptPredict {measured['one_round_trip_p50_ms']:.2f} ms, "
                    f"empty call {measured['empty_call_p50_ms']:.2f} ms"
                )
    shape = {"ways": WAYS, "shots": SHOTS, "queries": QUERIES, "repeats": BLOCKS * BLOCK, "threads": THREADS}
    content = {"machine": describe_machine(), "task": shape, "results": results}
    RESULTS.write_text(json.dumps(content, indent=2) + "\n")


def _measure(client: Client, name: str, bundle: Bundle) -> dict[str, Any]:
    random = np.random.default_rng(0)
    shape = bundle.learner.spec.input.shape
    labels = [f"class {index}" for index in np.repeat(np.arange(WAYS), SHOTS)]

    def in_process(support: NDArray[Any], query: NDArray[Any]) -> NDArray[Any]:
        return _adapt_and_predict(bundle, support, query)

    def served(support: NDArray[Any], query: NDArray[Any]) -> NDArray[Any]:
        kept.append(client.adapt(name, support, labels))
        return kept[-1].predict(query).probabilities

    def one_round_trip(support: NDArray[Any], query: NDArray[Any]) -> NDArray[Any]:
        answers = client.adapt_predict(name, support, labels, query=query)
        computing.append(answers.timings.adapt + answers.timings.predict)
        return answers.probabilities

    def empty_call(*_: NDArray[Any]) -> NDArray[Any]:
        client.get_adaptation(asked_for.id)
        return np.empty(0)

    computing: list[float] = []
    kept: list[Adaptation] = []
    asked_for = client.adapt(name, np.zeros((WAYS, *shape), np.uint8), [str(label) for label in range(WAYS)])
    ways = (in_process, served, one_round_trip, empty_call)
    milliseconds: dict[str, list[float]] = {way.__name__: [] for way in ways}
    for block in range(1 + BLOCKS):
        tasks = [
            (
                random.integers(0, 256, (WAYS * SHOTS, *shape), np.uint8),
                random.integers(0, 256, (WAYS * QUERIES, *shape), np.uint8),
            )
            for _ in range(BLOCK)
        ]
        answers = []
        for way in ways:
            seconds, given = _timed(way, tasks)
            # Between blocks, so that memory is in a steady state: in-process states go at once.
            while kept:
                kept.pop().delete()
            answers.append(given)
            if block:
                milliseconds[way.__name__] += [1e3 * value for value in seconds]
        np.testing.assert_allclose(answers[1], answers[0], atol=1e-4)
        np.testing.assert_allclose(answers[2], answers[0], atol=1e-4)
    medians = {f"{way}_p50_ms": median(values) for way, values in milliseconds.items()}
    return {
        **medians,
        "served_p99_ms": quantiles(milliseconds["served"], n=100)[-1],
        "overhead_p50_ms": medians["served_p50_ms"] - medians["in_process_p50_ms"],
        "server_computing_p50_ms": 1e3 * median(computing),
        "one_round_trip_overhead_p50_ms": medians["one_round_trip_p50_ms"] - medians["in_process_p50_ms"],
    }


def _timed(way: Way, tasks: list[tuple[NDArray[Any], NDArray[Any]]]) -> tuple[list[float], NDArray[Any]]:
    """Seconds and answers of each task."""
    seconds, answers = [], []
    for support, query in tasks:
        start = time.perf_counter()
        answers.append(way(support, query))
        seconds.append(time.perf_counter() - start)
    return seconds, np.stack(answers)


@torch.no_grad()
def _adapt_and_predict(bundle: Bundle, support: NDArray[Any], query: NDArray[Any]) -> NDArray[Any]:
    normalise = bundle.learner.spec.input.normalise
    any_ways = bundle.learner.info.ways_can_change == "any"
    y = torch.arange(WAYS).repeat_interleave(SHOTS).unsqueeze(0)
    batch = Support(
        normalise(torch.from_numpy(support)).unsqueeze(0),
        y,
        torch.ones(y.shape, dtype=torch.bool),
        torch.tensor([WAYS]),
        WAYS if any_ways else bundle.learner.spec.max_ways,
    )
    state = bundle.learner.adapt(bundle.params, batch).state
    queries = Query(normalise(torch.from_numpy(query)).unsqueeze(0), torch.ones(1, len(query), dtype=torch.bool))
    logits = bundle.learner.predict(bundle.params, state, queries)[0, :, :WAYS]
    return logits.softmax(-1).numpy()


if __name__ == "__main__":
    main()
