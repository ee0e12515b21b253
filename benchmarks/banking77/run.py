"""Intents of a bank's customers: learned heads behind a frozen encoder of sentences, against heads nobody trained.

    python benchmarks/banking77/run.py BANKING77 [--jobs 3]

BANKING77 is the folder of the data set's train.csv and test.csv. Intents are split by a fixed seed: 25 to learn from,
25 for every choice of settings, 27 for test. All answer from the very same features, over the same 600 episodes each:
nearest centroid, logistic regression whose penalty is chosen for each setting, and methods trained on the first
intents. Runs are kept in runs/banking77/ and resumed. Writes results.json.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from innerloop_learner.bundle import load_bundle
from innerloop_learner.layers import squared_distances
from innerloop_learner.tasks import Episodes
from innerloop_trainer.data import DataSource, EpisodeShape, TaskSampler
from innerloop_trainer.encoders import load_encoded, read_encoder
from innerloop_trainer.evaluation import confidence_interval, evaluate, evaluation_batches, score

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine
from training import train

ROOT = Path(__file__).resolve().parent.parent.parent
RUNS = ROOT / "runs" / "banking77"
ENCODER = "all-minilm-l6-v2"
RESULTS = Path(__file__).with_name("results.json")

CPU = torch.device("cpu")
SETTINGS = {f"{ways}w{shots}s": EpisodeShape(ways, shots, 15) for ways in (5, 10, 20) for shots in (1, 5)}
CHOOSING, TESTING = 200, 600
"""Episodes of each setting."""
PENALTIES = (1.0, 10.0, 100.0)
"""Inverse strengths of logistic regression's penalty."""

COMMON = ("--ways", "10", "--validate-every", "100", "--device", "cpu", "--test-episodes", "2")
CANDIDATES: dict[str, list[Sequence[str]]] = {
    "protonet": [
        ("--shots", shots, "--train-ways", "20", "--iterations", "2000", "--learning-rate", rate)
        for shots in ("1", "5")
        for rate in ("0.0003", "0.0001", "0.00003")
    ],
    "r2d2": [
        ("--shots", shots, "--iterations", "1500", "--learning-rate", rate)
        for shots in ("1", "5")
        for rate in ("0.0003", "0.0001", "0.00003")
    ],
    "lr-d2": [
        ("--shots", shots, "--iterations", "500", "--learning-rate", rate)
        for shots in ("1", "5")
        for rate in ("0.0003", "0.0001")
    ],
    # Its head has a fixed width; a head of 20 ways answers for fewer ways, too.
    "anil": [
        (
            *("--ways", "20", "--shots", shots, "--iterations", "1000", "--meta-batch", "4"),
            *("--steps", "10", "--set", f"rate={rate}", "--learning-rate", "0.0003"),
        )
        for shots in ("1", "5")
        for rate in ("0.1", "0.5")
    ],
    "baseline": [
        ("--shots", "1", "--iterations", "2000", "--set", f"rate={inner}", "--learning-rate", rate)
        for inner in ("0.1", "0.5")
        for rate in ("0.001", "0.0001")
    ],
}
"""Runs of each method; one of them is chosen for each setting, as is the penalty of logistic regression."""


def main() -> None:
    """Train, choose, measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of BANKING77")
    parser.add_argument("--jobs", type=int, default=3, help="runs at the same time")
    arguments = parser.parse_args()
    data = f"texts:{arguments.data}?val=0.325&test=0.35"
    source = load_encoded(data, CPU, read_encoder(ENCODER))
    behind = ("--data", data, "--encoder", ENCODER)
    runs = [(method, index) for method, candidates in CANDIDATES.items() for index in range(len(candidates))]

    def train_run(run: tuple[str, int]) -> None:
        method, index = run
        train(_folder(*run), method, [*behind, *COMMON, *CANDIDATES[method][index]])

    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(train_run, runs))
    torch.set_num_threads(1)
    logistic = {name: _logistic_regression(source, name) for name in SETTINGS}
    results: dict[str, Any] = {
        "nearest centroid": {"settings": {name: _summary(_centroids(source, name)) for name in SETTINGS}},
        "logistic regression": {
            "settings": {name: {**_summary(values), "penalty": penalty} for name, (values, penalty) in logistic.items()}
        },
    }
    for method in CANDIDATES:
        results[method] = _method(method, source, {name: values for name, (values, _) in logistic.items()})
    record = {
        "machine": describe_machine(),
        "data": source.description,
        "protocol": f"inductive, {TESTING} test episodes, settings chosen on {CHOOSING} validation episodes",
        "results": results,
    }
    RESULTS.write_text(json.dumps(record, indent=2) + "\n")


def _method(method: str, source: DataSource, logistic: dict[str, Tensor]) -> dict[str, Any]:
    """The run of a method that is best on validation episodes of each setting, measured, and its gain over another."""

    def measure(index: int, split: TaskSampler, name: str, episodes: int) -> Tensor:
        bundle = load_bundle(_folder(method, index) / "bundle")
        shape = SETTINGS[name]
        return evaluate(bundle.learner, bundle.params, split, shape, split="", episodes=episodes).values

    settings = {}
    for name in SETTINGS:
        validated = [
            measure(index, source.validation, name, CHOOSING).mean().item() for index in range(len(CANDIDATES[method]))
        ]
        best = validated.index(max(validated))
        values = measure(best, source.test, name, TESTING)
        gain = values - logistic[name]
        settings[name] = {
            **_summary(values),
            "options": " ".join(CANDIDATES[method][best]),
            "over_logistic_regression": {"mean": gain.mean().item(), "confidence_interval": confidence_interval(gain)},
        }
    return {"settings": settings}


def _centroids(source: DataSource, name: str) -> Tensor:
    """Accuracies of the nearest class mean of features."""

    def answer(episodes: Episodes) -> Tensor:
        support = episodes.support
        means = support.shares(support.x.dtype).transpose(1, 2) @ support.x
        return -squared_distances(episodes.query.x, means)

    return _measured(source.test, name, TESTING, answer)


def _logistic_regression(source: DataSource, name: str) -> tuple[Tensor, float]:
    """Accuracies of a classifier fitted to each support set, and the penalty chosen for it."""

    def with_penalty(penalty: float) -> Callable[[Episodes], Tensor]:
        def answer(episodes: Episodes) -> Tensor:
            tasks = zip(episodes.support.x, episodes.support.y, episodes.query.x, strict=True)
            fits = (
                LogisticRegression(C=penalty, max_iter=1000).fit(x.numpy(), y.numpy()).decision_function(query.numpy())
                for x, y, query in tasks
            )
            return torch.stack([torch.from_numpy(scores) for scores in fits])

        return answer

    validated = {
        penalty: _measured(source.validation, name, CHOOSING, with_penalty(penalty)).mean().item()
        for penalty in PENALTIES
    }
    best = max(PENALTIES, key=lambda penalty: validated[penalty])
    return _measured(source.test, name, TESTING, with_penalty(best)), best


def _measured(split: TaskSampler, name: str, episodes: int, answer: Callable[[Episodes], Tensor]) -> Tensor:
    """Accuracy of each episode, of those that methods are measured on."""
    drawn = (split.sample(SETTINGS[name], tasks, generator) for tasks, generator in evaluation_batches(0, episodes))
    return torch.cat([score(answer(batch), batch) for batch in drawn]).double()


def _summary(values: Tensor) -> dict[str, float]:
    return {"accuracy": values.mean().item(), "confidence_interval": confidence_interval(values)}


def _folder(method: str, index: int) -> Path:
    return RUNS / f"{method}-{index}"


if __name__ == "__main__":
    main()
