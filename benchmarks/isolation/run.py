"""200 concurrent SDK calls: does each get the answer it gets alone?

    python benchmarks/isolation/run.py PATH_OF_OMNIGLOT MODEL_FOLDER

Once of all models with mixed ways and shots, which makes small batches, and once of three models with tasks of one size
each, which makes large ones. Batching changes shapes and so rounding; "equal" means that no probability differs by more
than the tolerance, which is well below anything that changes a decision. Writes results.json, where there is a GPU
results-cuda.json.
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
from innerloop_command.server_process import ServerProcess
from innerloop_trainer.data import ClassExamples, EpisodeShape, load_source

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine, results_file

CALLS = 200
PACKED = ("anil", "maml", "protonet")
TOLERANCE = 1e-3
"""Largest difference of a probability that counts as equal: batch shapes and threads change rounding, and an inner loop
amplifies it."""


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
        models = client.models()
        packed = [model for model in models if model.name in PACKED]
        results = {
            "mixed": _compare(client, server, _mixed(models, source.test)),
            "packed": _compare(client, server, _packed(packed, source.test)),
        }
    content = {"machine": describe_machine(), "results": results}
    results_file(__file__, "auto").write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps(results, indent=2))
    sys.exit(0 if all(result["equal"] == CALLS for result in results.values()) else 1)


def _compare(client: Client, server: ServerProcess, jobs: list[Job]) -> dict[str, Any]:
    """Answers one after the other, and all at once."""
    alone = [job.run(client) for job in jobs]
    gate = Barrier(CALLS)

    def at_once(job: Job) -> NDArray[Any]:
        gate.wait()
        return job.run(client)

    before = _batches(server.metrics_url)
    with ThreadPoolExecutor(CALLS) as threads:
        together = list(threads.map(at_once, jobs))
    after = _batches(server.metrics_url)
    differences = [float(np.abs(a - b).max()) for a, b in zip(alone, together, strict=True)]
    decisions = sum(int((a.argmax(1) != b.argmax(1)).sum()) for a, b in zip(alone, together, strict=True))
    return {
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
        "mean_batch_size": {
            operation: (tasks - before[operation][0]) / (batches - before[operation][1])
            for operation, (tasks, batches) in after.items()
        },
    }


def _mixed(models: list[Model], sampler: ClassExamples) -> list[Job]:
    """Tasks of 2 to 10 ways (as the model allows), 1 to 5 shots, 1 to 15 queries a class."""
    random = np.random.default_rng(0)
    generator = torch.Generator().manual_seed(0)
    jobs = []
    for index in range(CALLS):
        model = models[index % len(models)]
        ways = int(random.integers(2, min(model.limits.max_ways, 10) + 1))
        shape = EpisodeShape(ways, int(random.integers(1, 6)), int(random.integers(1, 16)))
        jobs.append(_job(model, sampler, shape, generator))
    return jobs


def _packed(models: list[Model], sampler: ClassExamples) -> list[Job]:
    """Tasks of 3 to 5 ways, 1 shot, 5 queries a class, which are padded to one size."""
    generator = torch.Generator().manual_seed(1)
    shapes = [EpisodeShape(ways, 1, 5) for ways in (3, 4, 5)]
    return [
        _job(models[index % len(models)], sampler, shapes[index // len(models) % len(shapes)], generator)
        for index in range(CALLS)
    ]


def _job(model: Model, sampler: ClassExamples, shape: EpisodeShape, generator: torch.Generator) -> Job:
    raw = sampler.sample_raw(shape, 1, generator)
    labels = [f"class {label}" for label in raw.support_labels[0].tolist()]
    return Job(model.name, raw.support[0].numpy(), labels, raw.query[0].numpy())


def _batches(url: str) -> dict[str, tuple[float, float]]:
    """Tasks and batches by operation, to show that calls were indeed batched."""
    totals: dict[str, list[float]] = {}
    with urllib.request.urlopen(url) as response:
        lines = response.read().decode().splitlines()
    for column, suffix in enumerate(("_sum", "_count")):
        for line in lines:
            if line.startswith(f"innerloop_batch_size{suffix}{{"):
                operation = line.partition('operation="')[2].partition('"')[0]
                totals.setdefault(operation, [0.0, 0.0])[column] += float(line.rsplit(" ", 1)[1])
    return {operation: (total, count) for operation, (total, count) in totals.items()}


if __name__ == "__main__":
    main()
