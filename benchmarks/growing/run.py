"""Adaptations that grow, served: are they as good as those that had all examples at once, and what does an update take?

    python benchmarks/growing/run.py OMNIGLOT [--methods protonet r2d2 anil] [--tasks 600]

Trains each method for some minutes (runs are kept in runs/growing/ and resumed) and serves it from SQLite, with
--durability through, on one thread. On the same tasks of unseen characters (random split, inductive, 5 queries for each
class) an adaptation grows by updates of one client: from 1 to 10 examples for each of 5 classes, one for each class at
a time, and from 5 to 20 classes of 5 examples, one class at a time. Then an adaptation is made of all examples at once.
Where the server keeps the examples, an update adapts again from all of them. Where it does not (`forgotten`), the
method learns the new ones into the task state, if it can. What was measured on as many tasks stays. Writes
results.json: accuracies in per cent with half widths of 95% confidence intervals over tasks, their differences between
the same tasks, the share of queries that both answer alike, the largest difference of a probability, and medians of
milliseconds that the client waited.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from innerloop import Client, Predictions
from innerloop_command.server_process import ServerProcess
from innerloop_trainer.data import ClassExamples, EpisodeShape, load_source
from innerloop_trainer.evaluation import confidence_interval, evaluation_batches

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine
from training import train

ROOT = Path(__file__).resolve().parent.parent.parent
RUNS = ROOT / "runs" / "growing"
RESULTS = Path(__file__).with_name("results.json")
QUERIES = 5
NETWORK = ["--backbone-set", "width=32", "--backbone-set", "downsample=stride", "--backbone-set", "norm=batch"]
COMMON = [*NETWORK, "--shots", "5", "--queries", "5", "--iterations", "200", "--learning-rate", "0.002"]
COMMON += ["--validate-every", "100", "--validation-episodes", "100", "--test-episodes", "2"]
METHODS = {
    "protonet": ["--train-ways", "20", "--meta-batch", "1"],
    "r2d2": ["--train-ways", "20", "--meta-batch", "1"],
    "anil": ["--meta-batch", "2"],
}
Images = NDArray[np.uint8]


class Growth(NamedTuple):
    """One way to grow: the ways and shots of its tasks, and the batches of examples that come one after the other."""

    shape: EpisodeShape
    batches: Callable[[int], Iterator[tuple[range, range]]]


def _shots(ways: int) -> Iterator[tuple[range, range]]:
    """One example more for each class at a time."""
    for shot in range(10):
        yield range(ways), range(shot, shot + 1)


def _classes(ways: int) -> Iterator[tuple[range, range]]:
    """Five classes, and then one more at a time, with all of its examples."""
    yield range(5), range(5)
    for way in range(5, ways):
        yield range(way, way + 1), range(5)


GROWTHS = {
    "1 to 10 shots": Growth(EpisodeShape(5, 10, QUERIES), _shots),
    "5 to 20 classes": Growth(EpisodeShape(20, 5, QUERIES), _classes),
}


@dataclass
class Task:
    """Images by class [ways, shots, *image], and queries with their labels."""

    examples: Images
    queries: Images
    truth: list[str]


@dataclass
class Measured:
    """What was found in the tasks so far."""

    right: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    alike: list[float] = field(default_factory=list)
    difference: float = 0.0
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


def main() -> None:
    """Train, serve, measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("omniglot", type=Path, help="folder with images_background.zip and images_evaluation.zip")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--tasks", type=int, default=600)
    given = parser.parse_args()
    source = f"omniglot:{given.omniglot}?rotations=false"
    torch.set_num_threads(1)
    sampler = load_source(source).test
    assert isinstance(sampler, ClassExamples)
    results: dict[str, Any] = json.loads(RESULTS.read_text())["results"] if RESULTS.is_file() else {}
    for method in given.methods:
        train(RUNS / method, method, [*COMMON, *METHODS[method], "--data", source])
        known = results.setdefault(method, {})
        done = {name for name, figures in known.items() if figures["tasks"] >= given.tasks}
        for name, figures in measure(RUNS / method / "bundle", method, sampler, given.tasks, done):
            known[name] = figures
            print(method, name, json.dumps(figures, indent=2), flush=True)
            content = {"machine": describe_machine(), "results": results}
            RESULTS.write_text(json.dumps(content, indent=2) + "\n")


def measure(
    bundle: Path, method: str, sampler: ClassExamples, tasks: int, done: Collection[str] = ()
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What comes of each way to grow, with the examples kept and, if the model can do without, forgotten.

    Args:
        bundle: of the method.
        method: its name.
        sampler: of unseen classes.
        tasks: number of tasks.
        done: names of what is left out.
    """
    with tempfile.TemporaryDirectory(prefix="growing-") as scratch:
        shutil.copytree(bundle, Path(scratch) / "models" / method)
        settings: dict[str, Any] = {"threads": 1, "lanes": 1, "store": f"sqlite:{scratch}/store"}
        server = ServerProcess(Path(scratch) / "models", **settings)
        with server, Client(server.target, readapt=False) as client:
            model = client.model(method)
            for name, growth in GROWTHS.items():
                if growth.shape.ways > model.limits.max_ways:
                    continue
                for forget in (False, True)[: 1 + model.extends]:
                    part = f"{name}{', forgotten' * forget}"
                    if part in done:
                        continue
                    measured = Measured()
                    for task in _tasks(sampler, growth.shape, tasks):
                        _grow(client, method, growth, task, forget, measured)
                    yield part, _figures(measured)


def _tasks(sampler: ClassExamples, shape: EpisodeShape, count: int) -> Iterator[Task]:
    for tasks, generator in evaluation_batches(0, count):
        raw = sampler.sample_raw(shape, tasks, generator)
        for task in range(tasks):
            labels = raw.support_labels[task].numpy()
            images = raw.support[task].numpy()
            examples = np.stack([images[labels == way] for way in range(shape.ways)])
            truth = [_label(int(label)) for label in raw.query_labels[task]]
            yield Task(examples, raw.query[task].numpy(), truth)


def _label(way: int) -> str:
    return f"class {way:02}"


def _grow(client: Client, method: str, growth: Growth, task: Task, forget: bool, measured: Measured) -> None:
    """Have one adaptation grow, make another at once, and compare them."""
    batches = list(growth.batches(growth.shape.ways))
    images = [np.concatenate([task.examples[way, shots] for way in ways]) for ways, shots in batches]
    labels = [[_label(way) for way in ways for _ in shots] for ways, shots in batches]
    grown = client.adapt(method, images[0], labels[0], forget_examples=forget)
    measured.right["before"].append(_right(grown.predict(task.queries), task))
    for number in range(1, len(batches)):
        started = time.perf_counter()
        grown.add(images[number], labels[number])
        place = {1: "first update", len(batches) - 1: "last update"}.get(number, "updates between")
        measured.seconds[place].append(time.perf_counter() - started)
    started = time.perf_counter()
    at_once = client.adapt(method, np.concatenate(images), list(chain(*labels)), forget_examples=forget)
    measured.seconds["adapt at once"].append(time.perf_counter() - started)
    one, other = grown.predict(task.queries), at_once.predict(task.queries)
    measured.right["grown"].append(_right(one, task))
    measured.right["at once"].append(_right(other, task))
    measured.alike.append(float(np.mean([a == b for a, b in zip(one.labels, other.labels, strict=True)])))
    for a, b in zip(one, other, strict=True):
        difference = max(abs(a.probabilities[label] - b.probabilities[label]) for label in b.probabilities)
        measured.difference = max(measured.difference, difference)
    grown.delete()
    at_once.delete()


def _right(answers: Predictions, task: Task) -> float:
    return float(np.mean([answer == true for answer, true in zip(answers.labels, task.truth, strict=True)]))


def _figures(measured: Measured) -> dict[str, Any]:
    right = {name: torch.tensor(values, dtype=torch.float64) for name, values in measured.right.items()}
    right["grown - at once"] = right["grown"] - right["at once"]
    return {
        "tasks": len(measured.alike),
        **{name: _per_cent(values) for name, values in right.items()},
        "answered alike": round(100 * float(np.mean(measured.alike)), 3),
        "largest difference of a probability": float(f"{measured.difference:.2g}"),
        "ms": {name: round(1000 * median(values), 2) for name, values in measured.seconds.items()},
    }


def _per_cent(values: torch.Tensor) -> list[float]:
    """Mean and half width of its 95% confidence interval."""
    return [round(100 * values.mean().item(), 2), round(100 * confidence_interval(values), 2)]


if __name__ == "__main__":
    main()
