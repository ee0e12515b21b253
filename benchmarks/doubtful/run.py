"""Doubtful examples: are wrong labels found, and what is gained by dropping what was found?

    python benchmarks/doubtful/run.py OMNIGLOT [--only NAMES] [--episodes 600] [--pairs 150]

`protonet` and `anil` are trained for some minutes on Omniglot (random split) and on embedded glyphs, and calibrated
with their validation classes. Runs are kept in runs/doubtful/ and resumed. On unseen classes, 5-way, inductive, 10
queries a class, the examples of each task are diagnosed as a server does (`innerloop_learner.diagnosis`): one wrong
label in the whole task of 5 shots, one in each class of 5 shots, and 1, 2 or 4 in each class of 10 shots.

Reported are precision and recall of the examples that pass for doubtful, the area under the ROC curve of doubts, and
accuracy with true labels, with the wrong ones (doing nothing), after dropping what is doubtful, after dropping as many
examples at random (the negative control), and after dropping exactly what is wrong. Dropping leaves every class its
least doubtful example. Of tasks with true labels: how often the interval of the expected accuracy holds the accuracy of
15 queries a class, how often that is above it, its mean width, and the mean difference to that accuracy. Of tasks in
which one class has two names: how often that pair is named, and how many other pairs are. `choices` is what was chosen
from, on validation classes. The cost is the time of an Adapt with and without `diagnose` to one server, by turns.

`suggestions` adds labels to one example of each class, in 10 rounds of 2, from a pool of 10 of each class: those that
`Adaptation.suggest` chooses, random ones, those of the smallest margin, the farthest from each other, and (the negative
control) the most decided ones. Accuracy on 9 other queries of each class after each round, and the gain over random
ones in the mean of all rounds; `suggestions, validation` is what `suggest` was chosen from.

Writes results.json; intervals are 95% ones, half widths, from 200 resamplings of the episodes (of the pairs, for the
cost).
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from innerloop import Client
from innerloop_command.server_process import ServerProcess
from innerloop_learner.bundle import Bundle, load_bundle, save_bundle
from innerloop_learner.calibration import probabilities
from innerloop_learner.diagnosis import DOUBTFUL_FROM, Diagnosis, diagnose, doubts_of
from innerloop_learner.tasks import Support
from innerloop_trainer.bundle_evaluation import load_source_of
from innerloop_trainer.calibration.measure import area_under_curve
from innerloop_trainer.data import EpisodeShape, TaskSampler

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from asked import Asked, ask
from episodes import Wrong, drawn
from machine import describe_machine
from suggestions import accuracies_by_round
from training import train

ROOT = Path(__file__).resolve().parent.parent.parent
RUNS = ROOT / "runs" / "doubtful"
RESULTS = Path(__file__).with_name("results.json")

QUERIES, MANY_QUERIES = 10, 15
CONDITIONS = {
    "5 shots, 1 of 25 wrong": (5, Wrong(single=True)),
    "5 shots, 20% wrong": (5, Wrong(1)),
    "10 shots, 10% wrong": (10, Wrong(1)),
    "10 shots, 20% wrong": (10, Wrong(2)),
    "10 shots, 40% wrong": (10, Wrong(4)),
}
CHOOSING, RESAMPLINGS, WARM_UP = 200, 200, 3
SHARES = (0.02, 0.05, 0.1, 0.2)
ALIKE_THRESHOLDS = (0.35, 0.4, 0.45)

COMMON = [
    *("--queries", "5", "--validation-episodes", "50", "--test-episodes", "2", "--validate-every", "250"),
    *("--calibration-episodes", "200", "--learning-rate", "0.004"),
    *("--backbone-set", "width=16", "--backbone-set", "downsample=stride", "--backbone-set", "norm=batch"),
]
MODELS = {
    "protonet-omniglot": ["--train-ways", "20", "--meta-batch", "1", "--iterations", "1000"],
    "protonet-glyphs": ["--train-ways", "20", "--meta-batch", "1", "--iterations", "500"],
    "anil-omniglot": ["--meta-batch", "4", "--iterations", "1000"],
    "anil-glyphs": ["--meta-batch", "4", "--iterations", "500"],
}

Flags = NDArray[np.bool_]
Figures = Mapping[str, NDArray[np.float64]]
"""Numbers of each episode."""


def main() -> None:
    """Train, measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("omniglot", type=Path, help="folder with images_background.zip and images_evaluation.zip")
    parser.add_argument("--only", nargs="+", help="such as protonet-glyphs; all by default")
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--pairs", type=int, default=150, help="pairs of requests for the cost")
    parser.add_argument("--cost", action="store_true", help="measure the cost again, and keep all else")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    content = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"results": {}}
    for name, options in MODELS.items():
        if arguments.only is not None and name not in arguments.only:
            continue
        method, source = name.split("-")
        data = f"omniglot:{arguments.omniglot}?rotations=false" if source == "omniglot" else source
        train(RUNS / name, method, [*COMMON, *options, "--data", data])
        bundle = load_bundle(RUNS / name / "bundle")
        found = content["results"][name] if arguments.cost else _without_cost(bundle, data, arguments.episodes)
        found["cost"] = _cost(bundle, arguments.pairs)
        content["results"][name] = found
        content["machine of the cost"] = describe_machine()
        if not arguments.cost:
            content |= {"machine": content["machine of the cost"], "episodes": arguments.episodes}
        RESULTS.write_text(json.dumps(content, indent=2) + "\n")
        print(name, json.dumps(found, indent=2), flush=True)


def _without_cost(bundle: Bundle, data: str, episodes: int) -> dict[str, Any]:
    """All that is measured of a model but what a diagnosis costs."""
    splits = load_source_of(bundle, data, torch.device("cpu"))
    asked = ask(bundle)
    validation, test = asked.read(splits.validation), asked.read(splits.test)
    found: dict[str, Any] = {"choices": _choices(asked, validation)}
    for condition, (shots, wrong) in CONDITIONS.items():
        found[condition] = _found(asked, test, shots, wrong, episodes)
    found["true labels"] = _true_labels(asked, test, episodes)
    found["one class under two names"] = _two_names(asked, test, episodes)
    found["suggestions"] = _suggestions(asked, test, episodes, 5)
    found["suggestions, validation"] = _suggestions(asked, validation, CHOOSING, 6)
    return found


def _found(asked: Asked, sampler: TaskSampler, shots: int, wrong: Wrong, episodes: int) -> dict[str, list[float]]:
    """Finding wrong labels, and accuracies with and without them."""
    doubts, truth, accuracies = [], [], []
    for number, (batch, given) in enumerate(drawn(sampler, EpisodeShape(5, shots, QUERIES), wrong, episodes, 1)):
        support = replace(batch.support, y=given)
        is_wrong = (given != batch.support.y).numpy()
        doubt = _doubts(asked.diagnoses(support))
        doubtful = _droppable(doubt, given.numpy(), DOUBTFUL_FROM)
        random = np.random.default_rng((1, number))
        kept = {
            "doing nothing": np.ones_like(is_wrong),
            "dropping the doubtful": ~doubtful,
            "dropping as many at random": ~_as_many_at_random(doubtful, given.numpy(), random),
            "dropping the wrong": ~is_wrong,
        }
        accuracies.append(
            {
                "true labels": asked.accuracy(batch.support, batch),
                **{name: asked.accuracy(_only(support, each), batch) for name, each in kept.items()},
            }
        )
        doubts.append(doubt)
        truth.append(is_wrong)
    doubt, is_wrong = np.concatenate(doubts), np.concatenate(truth)
    each = {name: np.concatenate([some[name] for some in accuracies]) for name in accuracies[0]}
    each["gain"] = each["dropping the doubtful"] - each["doing nothing"]

    def figures(chosen: NDArray[np.int64]) -> dict[str, float]:
        return {
            **_finding(doubt[chosen], is_wrong[chosen], DOUBTFUL_FROM),
            **{name: float(numbers[chosen].mean()) for name, numbers in each.items()},
        }

    return _with_intervals(figures, len(doubt))


def _true_labels(asked: Asked, sampler: TaskSampler, episodes: int) -> dict[str, dict[str, list[float]]]:
    """What is said of tasks without wrong labels."""
    names = ("interval holds", "accuracy above it", "width", "expected - true", "doubtful", "pairs named")
    found = {}
    for shots in (2, 5):
        rows = []
        for batch, _ in drawn(sampler, EpisodeShape(5, shots, MANY_QUERIES), Wrong(), episodes, 2):
            accuracy = asked.accuracy(batch.support, batch)
            for each, true in zip(asked.diagnoses(batch.support), accuracy, strict=True):
                expected = each.expected_accuracy
                assert expected is not None
                rows.append(
                    (
                        expected.low <= true <= expected.high,
                        true > expected.high,
                        expected.high - expected.low,
                        expected.value - true,
                        each.doubtful / each.judged,
                        len(each.alike),
                    )
                )
        table = np.array(rows, float)

        def figures(chosen: NDArray[np.int64], table: NDArray[np.float64] = table) -> dict[str, float]:
            return dict(zip(names, table[chosen].mean(0).tolist(), strict=True))

        found[f"{shots} shots"] = _with_intervals(figures, len(table))
    return found


def _suggestions(asked: Asked, sampler: TaskSampler, episodes: int, seed: int) -> dict[str, Any]:
    """Mean accuracy after each round, and the gain over random choice with its interval."""
    found = accuracies_by_round(asked, sampler, episodes, seed)
    mean = {name: each[:, 1:].mean(1) for name, each in found.items()}
    return {
        name: {
            "rounds": [_rounded(accuracy) for accuracy in found[name].mean(0)],
            **_with_intervals(
                lambda chosen, name=name: {"gain": float((mean[name] - mean["random"])[chosen].mean())}, episodes
            ),
        }
        for name in found
    }


def _two_names(asked: Asked, sampler: TaskSampler, episodes: int) -> dict[str, list[float]]:
    """How often one class under two names is named, of tasks with four classes and five labels, 5 shots."""
    found = np.array([_pairs(each) for each in _diagnoses_of_two_names(asked, sampler, episodes, 3)], float)
    names = ("named", "other pairs named")
    return _with_intervals(lambda chosen: dict(zip(names, found[chosen].mean(0).tolist(), strict=True)), len(found))


def _diagnoses_of_two_names(asked: Asked, sampler: TaskSampler, episodes: int, seed: int) -> list[Diagnosis]:
    """Diagnoses of tasks in which half of the examples of class 0 are called 4."""
    found = []
    for batch, _ in drawn(sampler, EpisodeShape(4, 10, 1), Wrong(), episodes, seed):
        y = batch.support.y
        rank = torch.stack([(y == way).cumsum(1) - 1 for way in range(4)], -1).gather(-1, y.unsqueeze(-1)).squeeze(-1)
        named = torch.where((y == 0) & (rank >= 5), 4, y)
        chosen = torch.nonzero((rank < 5) | (y == 0))[:, 1].view(len(y), 25)
        x = torch.stack([each[places] for each, places in zip(batch.support.x, chosen, strict=True)])
        ways = torch.full((len(y),), 5)
        support = Support(x, named.gather(1, chosen), torch.ones(len(y), 25, dtype=torch.bool), ways, 5)
        found += asked.diagnoses(support)
    return found


def _pairs(found: Diagnosis) -> tuple[bool, int]:
    """Whether classes 0 and 4 are named, and how many other pairs are."""
    named = [(pair.first, pair.second) for pair in found.alike]
    return (0, 4) in named, len(named) - ((0, 4) in named)


def _choices(asked: Asked, sampler: TaskSampler) -> dict[str, Any]:
    """What doubts, and what passes for doubtful, were chosen from, on validation classes."""
    found: dict[str, Any] = {}
    for condition, (shots, wrong) in CONDITIONS.items():
        if shots == 10 and wrong.of_class != 2:
            continue
        rows = []
        for batch, given in drawn(sampler, EpisodeShape(5, shots, QUERIES), wrong, CHOOSING, 4):
            support = replace(batch.support, y=given)
            logits, y = asked.left_out(support), given.numpy()
            sure = probabilities(logits, asked.calibration(5, shots - 0.2))
            plain = np.exp(logits - logits.max(-1, keepdims=True))
            doubt = _doubts([diagnose(*each) for each in zip(y, sure, strict=True)])
            own = np.take_along_axis(logits, y[..., None], -1)[..., 0]
            best_other = np.where(np.eye(5, dtype=bool)[y], -np.inf, logits).max(-1)
            scores = {
                "calibrated": doubt,
                "plain": _doubts(
                    [diagnose(*each) for each in zip(y, plain / plain.sum(-1, keepdims=True), strict=True)]
                ),
                "margin of logits": best_other - own,
                "distance": -own,
            }
            of_label = np.take_along_axis(sure, y[..., None], -1)[..., 0]
            judged = {f"1 of {1 / share:g} wrong": doubts_of(of_label, 5, share) for share in SHARES}
            judged["1 - p"] = 1 - of_label
            after = {name: ~_droppable(each, y, DOUBTFUL_FROM) for name, each in judged.items()}
            accuracies = {name: asked.accuracy(_only(support, kept), batch) for name, kept in after.items()}
            accuracies["doing nothing"] = asked.accuracy(support, batch)
            rows.append((scores, (given != batch.support.y).numpy(), accuracies))
        is_wrong = np.concatenate([each[1] for each in rows])
        found[condition] = {
            "area": {
                name: _rounded(_area(np.concatenate([each[0][name] for each in rows]), is_wrong)) for name in rows[0][0]
            },
            "accuracy": {
                name: _rounded(float(np.concatenate([each[2][name] for each in rows]).mean())) for name in rows[0][2]
            },
        }
    found["alike"] = _alike_choices(asked, sampler)
    return found


def _alike_choices(asked: Asked, sampler: TaskSampler) -> dict[str, list[float]]:
    """How often one class under two names is named, and other pairs a task, for several thresholds."""
    found = {}
    diagnoses = _diagnoses_of_two_names(asked, sampler, CHOOSING, 4)
    for least in ALIKE_THRESHOLDS:
        kept = [
            replace(each, alike=tuple(pair for pair in each.alike if pair.confusion >= least)) for each in diagnoses
        ]
        found[f"from {least}"] = [_rounded(each) for each in np.array([_pairs(each) for each in kept], float).mean(0)]
    return found


def _doubts(diagnoses: list[Diagnosis]) -> NDArray[np.float64]:
    return np.array([each.doubts for each in diagnoses])


def _droppable(doubt: NDArray[np.float64], y: NDArray[np.int64], least: float) -> Flags:
    """Examples [T, S] whose doubt is `least` or more, but for the least doubtful one of each class."""
    dropped = doubt >= least
    for row, (doubts, labels) in enumerate(zip(doubt, y, strict=True)):
        for way in np.unique(labels):
            members = np.flatnonzero(labels == way)
            dropped[row, members[doubts[members].argmin()]] = False
    return dropped


def _as_many_at_random(dropped: Flags, y: NDArray[np.int64], random: np.random.Generator) -> Flags:
    """Choose examples at random: of each class of each task as many as are dropped of it."""
    other = np.zeros_like(dropped)
    for row, labels in enumerate(y):
        for way in np.unique(labels):
            members = np.flatnonzero(labels == way)
            other[row, random.permutation(members)[: dropped[row, members].sum()]] = True
    return other


def _only(support: Support, kept: Flags) -> Support:
    return replace(support, mask=support.mask & torch.from_numpy(kept))


def _finding(doubt: NDArray[np.float64], is_wrong: Flags, least: float) -> dict[str, float]:
    found = doubt >= least
    return {
        "precision": float(is_wrong[found].mean()),
        "recall": float(found[is_wrong].mean()),
        "area": _area(doubt, is_wrong),
    }


def _area(score: NDArray[np.floating[Any]], is_wrong: Flags) -> float:
    return area_under_curve(score[is_wrong], score[~is_wrong])


def _with_intervals(figures: Callable[[NDArray[np.int64]], dict[str, float]], episodes: int) -> dict[str, list[float]]:
    """Each figure over all episodes, and the half width of its interval."""
    random = np.random.default_rng(0)
    resampled = [figures(random.integers(0, episodes, episodes)) for _ in range(RESAMPLINGS)]
    return {
        name: [_rounded(value), _rounded(1.96 * float(np.std([each[name] for each in resampled])))]
        for name, value in figures(np.arange(episodes)).items()
    }


def _rounded(value: float) -> float:
    return round(float(value), 4)


def _cost(bundle: Bundle, pairs: int) -> dict[str, Any]:
    """Milliseconds of an Adapt with and without a diagnosis, by turns, and the ratio of their medians."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        save_bundle(Path(folder) / "model", bundle.manifest, bundle.params)
        with ServerProcess(Path(folder), threads=1, lanes=1) as server, Client(server.target) as client:
            shape = client.model("model").input_shape
            for shots in (5, 20):
                x = np.random.default_rng(0).integers(0, 256, (5 * shots, *shape), dtype=np.uint8)
                times: dict[bool, list[float]] = {True: [], False: []}
                for turn in range(WARM_UP + pairs):
                    for asks in (turn % 2 == 0, turn % 2 == 1):
                        begun = perf_counter()
                        client.adapt("model", x, list("abcde") * shots, diagnose=asks).delete()
                        times[asks].append(1e3 * (perf_counter() - begun))
                with_it, without = (float(np.median(times[asks][WARM_UP:])) for asks in (True, False))
                found[f"{5 * shots} examples"] = {
                    "with": _rounded(with_it),
                    "without": _rounded(without),
                    "ratio": _rounded(with_it / without),
                }
    return found


if __name__ == "__main__":
    main()
