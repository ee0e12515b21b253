"""One class brings 15 examples, the four others one each: what becomes of those, with classes balanced or not?

    python benchmarks/class_balance/run.py [--methods anil protonet ...] [--tasks 200] [--jobs 1]

Trains small models on glyphs (a minute or two each, kept in runs/class_balance/ and resumed) and measures their
accuracy on tasks of unseen classes, inductively: with one example of every class, and with 15 of the first class and
one of each other, adapting with `class_balance` "equal" and "proportional". Both adapt the same parameters to the same
tasks. Writes results.json: mean accuracies in per cent, of the first class and of the four others, with half widths of
95% confidence intervals over tasks.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from innerloop_learner import Episodes, Support, build_learner
from innerloop_learner.bundle import Bundle, load_bundle
from innerloop_learner.spec import ClassBalance
from innerloop_trainer.data import EpisodeShape, load_source
from innerloop_trainer.evaluation import confidence_interval
from innerloop_trainer.seeds import generator_for

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine
from training import train

ROOT = Path(__file__).resolve().parent.parent.parent
RUNS = ROOT / "runs" / "class_balance"
RESULTS = Path(__file__).with_name("results.json")
WAYS, MANY, QUERIES = 5, 15, 4
TASKS_AT_ONCE = 20
COMMON = ["--data", "glyphs", "--backbone-set", "width=32", "--backbone-set", "downsample=stride"]
COMMON += ["--validate-every", "200", "--validation-episodes", "50", "--test-episodes", "2"]
METHODS = {
    "anil": ["--iterations", "500", "--meta-batch", "4"],
    "maml": ["--iterations", "300", "--meta-batch", "2"],
    "baseline": ["--iterations", "500", "--train-ways", "20"],
    "protonet": ["--iterations", "300", "--train-ways", "20"],
    "matching": ["--iterations", "300", "--train-ways", "20"],
    "knn": ["--iterations", "500", "--train-ways", "20"],
    "r2d2": ["--iterations", "300"],
    "lr-d2": ["--iterations", "300"],
    "cnaps": ["--iterations", "500"],
    "meta-networks": ["--iterations", "500", "--meta-batch", "4"],
    "mann": ["--iterations", "500", "--meta-batch", "4"],
    "snail": ["--iterations", "500", "--meta-batch", "4"],
}


def main() -> None:
    """Train, measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=1, help="training runs at the same time")
    arguments = parser.parse_args()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(_train, arguments.methods))
    torch.set_num_threads(1)
    results = json.loads(RESULTS.read_text())["results"] if RESULTS.is_file() else {}
    for method in arguments.methods:
        results[method] = _measure(load_bundle(RUNS / method / "bundle"), arguments.tasks)
        print(method, json.dumps(results[method], indent=2), flush=True)
    content = {"machine": describe_machine(), "tasks": arguments.tasks, "results": results}
    RESULTS.write_text(json.dumps(content, indent=2) + "\n")


def _train(method: str) -> None:
    train(RUNS / method, method, [*COMMON, *METHODS[method]])


def _measure(bundle: Bundle, tasks: int) -> dict[str, dict[str, Any]]:
    """Accuracies by support set and class balance."""
    source, shape = load_source("glyphs"), EpisodeShape(WAYS, MANY, QUERIES)
    batches = [
        source.test.sample(shape, TASKS_AT_ONCE, generator_for(0, "class_balance", batch))
        for batch in range(tasks // TASKS_AT_ONCE)
    ]
    results: dict[str, dict[str, Any]] = {}
    for name, first in (("1:1:1:1:1", 1), (f"{MANY}:1:1:1:1", MANY)):
        for balance in get_args(ClassBalance):
            right = torch.cat([_right(bundle, _with_counts(batch, [first, 1, 1, 1, 1]), balance) for batch in batches])
            results.setdefault(name, {})[balance] = {
                "first class": _per_cent(right[:, 0]),
                "other classes": _per_cent(right[:, 1:].mean(1)),
            }
    return results


def _with_counts(episodes: Episodes, counts: Sequence[int]) -> Episodes:
    """The same tasks with so many support examples of each class, one class after the other."""
    support = episodes.support
    by_class = support.y.argsort(dim=1, stable=True).unflatten(1, (WAYS, MANY))
    rows = torch.cat([by_class[:, label, :count] for label, count in enumerate(counts)], 1)  # [T, S]
    x = torch.stack([own[chosen] for own, chosen in zip(support.x, rows, strict=True)])
    y = support.y.gather(1, rows)
    return replace(episodes, support=Support(x, y, torch.ones_like(y, dtype=torch.bool), support.ways, WAYS))


def _right(bundle: Bundle, episodes: Episodes, balance: ClassBalance) -> Tensor:
    """Share of each class's queries that were answered rightly, [T, WAYS]."""
    learner = build_learner(replace(bundle.manifest.learner, class_balance=balance))
    with torch.no_grad():
        state = learner.adapt(bundle.params, episodes.support).state
        answers = learner.predict(bundle.params, state, episodes.query).argmax(-1)
    right = (answers == episodes.targets).double()
    return torch.stack([(right * (episodes.targets == label)).sum(1) / QUERIES for label in range(WAYS)], 1)


def _per_cent(values: Tensor) -> list[float]:
    """Mean and half width of its 95% confidence interval."""
    return [round(100 * values.mean().item(), 2), round(100 * confidence_interval(values), 2)]


if __name__ == "__main__":
    main()
