"""What gRPC, batching and state cost one client: Adapt + Predict through a server against the same in-process.

    python benchmarks/overhead/run.py MODEL_FOLDER

MODEL_FOLDER holds bundles of image classifiers. Served and in-process calls alternate, one task at a time, uint8 images
in and probabilities out, with the same number of threads.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from innerloop import Client
from innerloop_learner import Query, Support
from innerloop_learner.bundle import Bundle, load_bundle
from innerloop_server.process import ServerProcess

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine

RESULTS = Path(__file__).with_name("results.json")
WAYS, SHOTS, QUERIES = 5, 1, 5
WARM_UP, REPEATS = 50, 300
THREADS = 1


def main() -> None:
    """Measure every model of the folder and write results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    models: Path = parser.parse_args().models
    torch.set_num_threads(THREADS)
    results = {}
    with ServerProcess(models, threads=THREADS) as server, Client(server.target) as client:
        for model in client.models():
            results[model.name] = _measure(client, model.name, load_bundle(models / model.name))
    setting = {"ways": WAYS, "shots": SHOTS, "queries": QUERIES, "repeats": REPEATS, "threads": THREADS}
    content = {"machine": describe_machine(), "setting": setting, "results": results}
    RESULTS.write_text(json.dumps(content, indent=2) + "\n")
    for name, result in results.items():
        print(
            f"{name:12} in-process {result['in_process_p50_ms']:.2f} ms, served {result['served_p50_ms']:.2f} ms, "
            f"overhead {result['overhead_p50_ms']:.2f} ms for Adapt + Predict"
        )


def _measure(client: Client, name: str, bundle: Bundle) -> dict[str, Any]:
    random = np.random.default_rng(0)
    shape = bundle.learner.spec.input.shape
    labels = [f"class {index}" for index in np.repeat(np.arange(WAYS), SHOTS)]
    in_process, served = [], []
    for repeat in range(WARM_UP + REPEATS):
        support = random.integers(0, 256, (WAYS * SHOTS, *shape), np.uint8)
        query = random.integers(0, 256, (WAYS * QUERIES, *shape), np.uint8)
        start = time.perf_counter()
        expected = _in_process(bundle, support, query)
        middle = time.perf_counter()
        probabilities = client.adapt(name, support, labels).predict(query).probabilities
        end = time.perf_counter()
        np.testing.assert_allclose(probabilities, expected, atol=1e-3)
        if repeat >= WARM_UP:
            in_process.append((middle - start) * 1e3)
            served.append((end - middle) * 1e3)
    return {
        "in_process_p50_ms": median(in_process),
        "served_p50_ms": median(served),
        "served_p99_ms": quantiles(served, n=100)[-1],
        "overhead_p50_ms": median(served) - median(in_process),
    }


@torch.no_grad()
def _in_process(bundle: Bundle, support: NDArray[Any], query: NDArray[Any]) -> NDArray[Any]:
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
