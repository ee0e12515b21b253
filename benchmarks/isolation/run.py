"""200 concurrent SDK calls of mixed ways, shots and models: does each get the answer it gets alone?

    python benchmarks/isolation/run.py PATH_OF_OMNIGLOT MODEL_FOLDER

Batching changes shapes and so rounding; "equal" means that no probability differs by more than the tolerance, which is
well below anything that changes a decision.
"""

import argparse
import json
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from innerloop import Client, Model
from innerloop_server.process import ServerProcess
from innerloop_trainer.data import ClassExamples, EpisodeShape, load_source

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine

RESULTS = Path(__file__).with_name("results.json")
CALLS = 200
TOLERANCE = 1e-3
"""Of a probability. Batch shapes and numbers of threads change rounding, and an inner loop amplifies it."""


@dataclass(frozen=True)
class Job:
    """One client's task: uint8 images and labels."""

    model: str
    support: NDArray[Any]
    labels: list[str]
    query: NDArray[Any]

    def run(self, client: Client) -> NDArray[Any]:
        """Adapt, predict, and return the probabilities [Q, W]."""
        return client.adapt(self.model, self.support, self.labels).predict(self.query).probabilities


def main() -> None:
    """Run every call alone, then all at once, compare, and write results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("omniglot", type=Path)
    parser.add_argument("models", type=Path)
    arguments = parser.parse_args()
    source = load_source(f"omniglot:{arguments.omniglot}")
    if not isinstance(source.test, ClassExamples):
        raise TypeError("Omniglot consists of images")
    with ServerProcess(arguments.models) as server, Client(server.target, timeout=300) as client:
        jobs = _jobs(client.models(), source.test)
        alone = [job.run(client) for job in jobs]
        gate = Barrier(CALLS)

        def at_once(job: Job) -> NDArray[Any]:
            gate.wait()
            return job.run(client)

        with ThreadPoolExecutor(CALLS) as threads:
            together = list(threads.map(at_once, jobs))
        batches = _mean_batch(server.metrics_url)
    differences = [float(np.abs(a - b).max()) for a, b in zip(alone, together, strict=True)]
    decisions = sum(int((a.argmax(1) != b.argmax(1)).sum()) for a, b in zip(alone, together, strict=True))
    results = {
        "calls": CALLS,
        "largest_difference": max(differences),
        "tolerance": TOLERANCE,
        "equal": sum(difference <= TOLERANCE for difference in differences),
        "changed_decisions": decisions,
        "differing": [
            {"model": job.model, "examples": len(job.support), "queries": len(job.query), "difference": difference}
            for job, difference in zip(jobs, differences, strict=True)
            if difference > TOLERANCE
        ],
        "mean_batch_size": batches,
    }
    RESULTS.write_text(json.dumps({"machine": describe_machine(), "results": results}, indent=2) + "\n")
    print(json.dumps(results, indent=2))
    sys.exit(0 if results["equal"] == CALLS else 1)


def _jobs(models: list[Model], sampler: ClassExamples) -> list[Job]:
    """Tasks of 2 to 10 ways (as the model allows), 1 to 5 shots, 1 to 15 queries a class."""
    random = np.random.default_rng(0)
    generator = torch.Generator().manual_seed(0)
    jobs = []
    for index in range(CALLS):
        model = models[index % len(models)]
        ways = int(random.integers(2, min(model.limits.max_ways, 10) + 1))
        shape = EpisodeShape(ways, int(random.integers(1, 6)), int(random.integers(1, 16)))
        raw = sampler.sample_raw(shape, 1, generator)
        labels = [f"class {label}" for label in raw.support_labels[0].tolist()]
        jobs.append(Job(model.name, raw.support[0].numpy(), labels, raw.query[0].numpy()))
    return jobs


def _mean_batch(url: str) -> dict[str, float]:
    """Mean tasks per batch by operation, to show that calls were indeed batched."""
    totals: dict[str, list[float]] = {}
    with urllib.request.urlopen(url) as response:
        lines = response.read().decode().splitlines()
    for column, suffix in enumerate(("_sum", "_count")):
        for line in lines:
            if line.startswith(f"innerloop_batch_size{suffix}{{"):
                operation = line.partition('operation="')[2].partition('"')[0]
                totals.setdefault(operation, [0.0, 0.0])[column] += float(line.rsplit(" ", 1)[1])
    return {operation: total / count for operation, (total, count) in totals.items()}


if __name__ == "__main__":
    main()
