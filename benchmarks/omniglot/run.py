"""Accuracy on Omniglot: trains each method, measures it offline and once more through a running server.

    python benchmarks/omniglot/run.py PATH_OF_OMNIGLOT

Runs are kept in runs/ and resumed, so that interrupting costs nothing; finished ones are not trained again. Figures are
of unseen characters of the random split, inductive, 600 episodes of 5 ways and 1 shot with 15 queries a class.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from innerloop import Client
from innerloop_server.process import ServerProcess
from innerloop_trainer.data import ClassImages, EpisodeShape, load_source
from innerloop_trainer.evaluation import evaluation_batches

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine

ROOT = Path(__file__).resolve().parent.parent.parent
RUNS = ROOT / "runs"
MODELS = RUNS / "omniglot-models"
"""The bundles, as a server takes them; the other benchmarks use them too."""

RESULTS = Path(__file__).with_name("results.json")
SHAPE = EpisodeShape(ways=5, shots=1, queries=15)
EPISODES = 600

SMALL_STEPS = ["--meta-batch", "8", "--queries", "3", "--learning-rate", "0.002"]
METHODS = {
    "protonet": ["--iterations", "6000"],
    "anil": ["--iterations", "24000", "--steps", "5", "--set", "rate=0.1", *SMALL_STEPS],
    "maml": ["--iterations", "14000", "--steps", "1", "--set", "rate=0.4", *SMALL_STEPS],
}
"""Training options. The strided Conv4 of MAML's Omniglot experiments costs a quarter of the pooled one on a CPU."""

COMMON = ["--backbone-set", "downsample=stride", "--validate-every", "1000"]


def main() -> None:
    """Train, evaluate, serve, and write results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("omniglot", type=Path, help="folder with images_background.zip and images_evaluation.zip")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    arguments = parser.parse_args()
    data = f"omniglot:{arguments.omniglot}"
    results = {method: _offline(method, data) for method in arguments.methods}
    for method, served in _served(arguments.methods, data).items():
        results[method].update(served)
    RESULTS.write_text(json.dumps({"machine": describe_machine(), "results": results}, indent=2) + "\n")
    for method, result in results.items():
        print(
            f"{method:10} offline {result['accuracy']:.2%} ± {result['confidence_interval']:.2%}, "
            f"served {result['served_accuracy']:.2%}, trained in {result['train_minutes']:.1f} min"
        )


def _offline(method: str, data: str) -> dict[str, Any]:
    """Train with `innerloop train`, measure with `innerloop evaluate`."""
    run = RUNS / f"omniglot-{method}"
    train = ["train", method, "--data", data, "--out", str(run), *METHODS[method], *COMMON]
    if not (run / "config.json").is_file():
        _innerloop(*train)
    elif not _finished(run):
        _innerloop(*train, "--resume")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "evaluation.json"
        _innerloop(
            "evaluate", str(run), "--data", data, "--ways", str(SHAPE.ways), "--shots", str(SHAPE.shots),
            "--queries", str(SHAPE.queries), "--episodes", str(EPISODES), "--json", str(file),
        )  # fmt: skip
        evaluation = json.loads(file.read_text())
    return {
        "accuracy": evaluation["value"],
        "confidence_interval": evaluation["confidence_interval"],
        "protocol": evaluation["protocol"],
        "bundle": evaluation["bundle"],
        "train_minutes": float(_log(run)[-1]["seconds"]) / 60,
        "train_threads": 1,
        "train_options": [*METHODS[method], *COMMON],
    }


def _served(methods: list[str], data: str) -> dict[str, dict[str, Any]]:
    """The same episodes, as uint8 images through a server and the SDK."""
    source = load_source(data)
    if not isinstance(source.test, ClassImages):
        raise TypeError("Omniglot consists of images")
    served = {}
    for method in methods:
        _innerloop("export", str(RUNS / f"omniglot-{method}"), "--out", str(MODELS / method))
    with ServerProcess(MODELS) as server, Client(server.target) as client:
        for method in methods:
            start = time.perf_counter()
            values = np.array(list(_accuracies(client, method, source.test)))
            served[method] = {
                "served_accuracy": values.mean(),
                "served_seconds_per_episode": (time.perf_counter() - start) / EPISODES,
            }
    return served


def _accuracies(client: Client, model: str, sampler: ClassImages) -> Iterator[float]:
    for tasks, generator in evaluation_batches(0, EPISODES):
        raw = sampler.sample_raw(SHAPE, tasks, generator)
        for task in range(tasks):
            labels = [sampler.names[int(raw.classes[task, label])] for label in raw.support_labels[task]]
            truth = [sampler.names[int(raw.classes[task, label])] for label in raw.query_labels[task]]
            with client.adapt(model, raw.support[task].numpy(), labels) as adaptation:
                answers = adaptation.predict(raw.query[task].numpy()).labels
            yield float(np.mean([answer == true for answer, true in zip(answers, truth, strict=True)]))


def _finished(run: Path) -> bool:
    iterations = json.loads((run / "config.json").read_text())["iterations"]
    rows = _log(run)
    return bool(rows) and int(rows[-1]["iteration"]) == iterations


def _log(run: Path) -> list[dict[str, str]]:
    with (run / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _innerloop(*arguments: str) -> None:
    """Run the command in one thread: Conv4 on 28x28 gains little from more, and several runs can go side by side."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "innerloop.cli.main", *arguments], check=True, env=environment)


if __name__ == "__main__":
    main()
