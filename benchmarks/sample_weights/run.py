"""Wrong labels in support sets, and uneven ones: what do learned weights of examples regain?

    python benchmarks/sample_weights/run.py OMNIGLOT [--methods protonet r2d2 anil] [--episodes 600] [--jobs 1]

Every method is trained three times for the same number of outer steps, from the same initial parameters: plainly on
clean tasks, plainly on tasks of which up to 40% of the labels are wrong, and on such tasks with `--weighting
leave_one_out`. Runs (minutes each) are kept in runs/sample_weights/ and resumed. Accuracies are of five-way tasks of
unseen characters (random split), inductive, 5 queries for each class, the same tasks for all. `removed` is the learner
that was trained plainly on wrong labels, given the right examples only, which nobody can know; `switched off` is the
one that was trained with weights, without them. Wrong examples are of other classes of the task, and all classes of a
task have equally many. Writes results.json: means in per cent, and differences between the same tasks, with half widths
of 95% confidence intervals over tasks.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from innerloop_learner import Episodes, Learner, Params, Support, build_learner
from innerloop_learner.bundle import load_bundle
from innerloop_trainer.data import EpisodeShape, TaskSampler, load_source
from innerloop_trainer.data.wrong_labels import mislabelled
from innerloop_trainer.evaluation import confidence_interval, score
from innerloop_trainer.seeds import generator_for

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine
from training import train

ROOT = Path(__file__).resolve().parent.parent.parent
RUNS = ROOT / "runs" / "sample_weights"
RESULTS = Path(__file__).with_name("results.json")
WAYS, SHOTS, QUERIES, MANY = 5, 10, 5, 19
TASKS_AT_ONCE = 25
NETWORK = ["--backbone-set", "width=32", "--backbone-set", "downsample=stride", "--backbone-set", "norm=batch"]
COMMON = [*NETWORK, "--shots", str(SHOTS), "--queries", "5", "--iterations", "400", "--learning-rate", "0.002"]
COMMON += ["--validate-every", "100", "--validation-episodes", "100", "--test-episodes", "2"]
METHODS = {
    "protonet": ["--train-ways", "10", "--meta-batch", "1"],
    "r2d2": ["--train-ways", "10", "--meta-batch", "1"],
    "anil": ["--meta-batch", "2"],
}
ARMS = {
    "clean": [],
    "wrong": ["--wrong-labels", "0.4"],
    "weights": ["--wrong-labels", "0.4", "--weighting", "leave_one_out"],
}
CASES = {"5 shots": (5, 0), "5 shots, 1 wrong": (5, 1), "10 shots": (10, 0)}
CASES |= {"10 shots, 2 wrong": (10, 2), "10 shots, 4 wrong": (10, 4)}
"""Shots and wrong labels of each class."""

UNEVEN = f"{MANY}:1:1:1:1"

Learned = tuple[Learner, Params]


def main() -> None:
    """Train, measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("omniglot", type=Path, help="folder with images_background.zip and images_evaluation.zip")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--jobs", type=int, default=1, help="runs, and methods to measure, at the same time")
    arguments = parser.parse_args()
    data = ["--data", f"omniglot:{arguments.omniglot}?rotations=false"]
    runs = [(method, arm) for method in arguments.methods for arm in ARMS]
    torch.set_num_threads(1)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lambda run: _train(*run, data), runs))
        sampler = load_source(data[1]).test
        measured = pool.map(lambda method: _measure_method(method, sampler, arguments.episodes), arguments.methods)
        results = json.loads(RESULTS.read_text())["results"] if RESULTS.is_file() else {}
        results |= dict(zip(arguments.methods, measured, strict=True))
    content = {"machine": describe_machine(), "tasks": arguments.episodes, "results": results}
    RESULTS.write_text(json.dumps(content, indent=2) + "\n")


def _train(method: str, arm: str, data: list[str]) -> None:
    train(RUNS / f"{method}-{arm}", method, [*COMMON, *METHODS[method], *ARMS[arm], *data])


def _load(method: str, arm: str) -> Learned:
    bundle = load_bundle(RUNS / f"{method}-{arm}" / "bundle")
    return bundle.learner, bundle.params


def _measure_method(method: str, sampler: TaskSampler, tasks: int) -> dict[str, Any]:
    arms = {arm: _load(method, arm) for arm in ARMS}
    learner, params = arms["weights"]
    arms["switched off"] = build_learner(replace(learner.spec, weighting="none")), params
    figures: dict[str, Any] = {name: _measure(arms, sampler, *case, tasks) for name, case in CASES.items()}
    figures[UNEVEN] = _measure_uneven(arms, sampler, tasks)
    print(method, json.dumps(figures, indent=2), flush=True)
    return figures


def _measure(arms: Mapping[str, Learned], sampler: TaskSampler, shots: int, wrong: int, tasks: int) -> dict[str, Any]:
    """Accuracies of all arms on the same tasks, what weights regain of what wrong labels cost, and how they rank."""
    found: dict[str, list[Tensor]] = {}
    for batch in range(tasks // TASKS_AT_ONCE):
        generator = generator_for(0, "sample_weights", batch)
        episodes = sampler.sample(EpisodeShape(WAYS, shots, QUERIES), TASKS_AT_ONCE, generator)
        support, count = episodes.support, torch.full((TASKS_AT_ONCE,), wrong)
        given = replace(support, y=mislabelled(support.y, WAYS, count, generator))
        is_wrong = given.y != support.y
        spoiled = replace(episodes, support=given)
        for arm, learned in arms.items():
            found.setdefault(arm, []).append(_right(learned, spoiled))
        if wrong:
            kept = replace(episodes, support=replace(given, mask=~is_wrong))
            found.setdefault("removed", []).append(_right(arms["wrong"], kept))
            weights = _weights(arms["weights"], given)
            found.setdefault("right first", []).append(_right_first(weights, given, is_wrong))
            of_wrong = (weights * is_wrong).sum(1).double() / is_wrong.sum(1)
            found.setdefault("weight of wrong examples", []).append(of_wrong)
    right = {name: torch.cat(values) for name, values in found.items()}
    figures: dict[str, Any] = {name: _per_cent(values) for name, values in right.items()}
    figures["weights - wrong"] = _per_cent(right["weights"] - right["wrong"])
    figures["weights - switched off"] = _per_cent(right["weights"] - right["switched off"])
    figures["weights - clean"] = _per_cent(right["weights"] - right["clean"])
    if wrong:
        figures["removed - wrong"] = _per_cent(right["removed"] - right["wrong"])
    return figures


def _measure_uneven(arms: Mapping[str, Learned], sampler: TaskSampler, tasks: int) -> dict[str, Any]:
    """Accuracies where the first class brings 19 examples and each other one, and a query each; labels are right."""
    found: dict[str, list[Tensor]] = {}
    proportional = {arm: _proportional(learned) for arm, learned in arms.items()}
    for batch in range(tasks // TASKS_AT_ONCE):
        episodes = sampler.sample(
            EpisodeShape(WAYS, MANY, 1), TASKS_AT_ONCE, generator_for(0, "uneven sample_weights", batch)
        )
        episodes = _with_one_of_most(episodes)
        for arm in arms:
            found.setdefault(arm, []).append(_right(arms[arm], episodes))
            found.setdefault(f"{arm}, proportional", []).append(_right(proportional[arm], episodes))
    right = {name: torch.cat(values) for name, values in found.items()}
    figures: dict[str, Any] = {name: _per_cent(values) for name, values in right.items()}
    figures["weights - wrong"] = _per_cent(right["weights"] - right["wrong"])
    figures["weights - switched off"] = _per_cent(right["weights"] - right["switched off"])
    figures["clean - clean, proportional"] = _per_cent(right["clean"] - right["clean, proportional"])
    return figures


def _proportional(learned: Learned) -> Learned:
    learner, params = learned
    return build_learner(replace(learner.spec, class_balance="proportional")), params


def _with_one_of_most(episodes: Episodes) -> Episodes:
    """The same tasks, with all support examples of the first class and one of each other."""
    support = episodes.support
    by_class = support.y.argsort(dim=1, stable=True).unflatten(1, (WAYS, MANY))
    rows = torch.cat([by_class[:, 0], by_class[:, 1:, 0]], 1)  # [T, S]
    x = torch.stack([own[chosen] for own, chosen in zip(support.x, rows, strict=True)])
    y = support.y.gather(1, rows)
    return replace(episodes, support=Support(x, y, torch.ones_like(y, dtype=torch.bool), support.ways, WAYS))


@torch.no_grad()
def _right(learned: Learned, episodes: Episodes) -> Tensor:
    """Share of each task's queries that were answered rightly, [T]."""
    learner, params = learned
    support = replace(episodes.support, max_ways=learner.padded_ways(WAYS))
    return score(learner.predict(params, learner.adapt(params, support).state, episodes.query), episodes).double()


@torch.no_grad()
def _weights(learned: Learned, support: Support) -> Tensor:
    learner, params = learned
    weights = learner.adapt(params, replace(support, max_ways=learner.padded_ways(WAYS))).weights
    assert weights is not None
    return weights


def _right_first(weights: Tensor, support: Support, is_wrong: Tensor) -> Tensor:
    """Share of pairs of a right and a wrong example of one class in which the right one weighs more, [T]."""
    pairs = (support.y.unsqueeze(2) == support.y.unsqueeze(1)) & ~is_wrong.unsqueeze(2) & is_wrong.unsqueeze(1)
    more = weights.unsqueeze(2) > weights.unsqueeze(1)
    return (more & pairs).sum((1, 2)).double() / pairs.sum((1, 2))


def _per_cent(values: Tensor) -> list[float]:
    """Mean and half width of its 95% confidence interval."""
    return [round(100 * values.mean().item(), 2), round(100 * confidence_interval(values), 2)]


if __name__ == "__main__":
    main()
