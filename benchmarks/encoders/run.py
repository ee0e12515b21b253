"""Photographs, clothes, spoken digits and intents behind frozen encoders: heads that nobody trained, and trained ones.

    python benchmarks/encoders/run.py --photos ZIP --clothes ZIP --digits ZIP --intents FOLDER [--jobs 2] [--served 600]

For each data set (`data.py`), over the same 600 episodes of unseen classes, inductive: class means and logistic
regression of the encoder's features, the bundle that `innerloop new` makes, heads that are meta-trained, and a small
network from scratch. Penalties and runs are chosen on validation classes. The bundle of `innerloop new` and the chosen
run answer once more through a running server. Runs are kept in runs/encoders/ and resumed. Writes results.json.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from data import Data, prepare
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from innerloop import Client
from innerloop_command.server_process import ServerProcess
from innerloop_learner.bundle import load_bundle
from innerloop_learner.layers import squared_distances
from innerloop_learner.tasks import Episodes
from innerloop_trainer.data import ClassExamples, DataSource, EpisodeShape, TaskSampler, load_source
from innerloop_trainer.encoders import load_encoded, load_for_encoder, open_bundled, read_encoder
from innerloop_trainer.evaluation import confidence_interval, evaluate, evaluation_batches, score
from innerloop_trainer.runs.folder import RunFolder
from innerloop_trainer.runs.log import read_rows

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine
from served import served_accuracies
from training import run_innerloop, train

ROOT = Path(__file__).resolve().parent.parent.parent
RUNS = ROOT / "runs" / "encoders"
RESULTS = Path(__file__).with_name("results.json")

CPU = torch.device("cpu")
SETTINGS = {"5w1s": EpisodeShape(5, 1, 15), "5w5s": EpisodeShape(5, 5, 15)}
CHOOSING, TESTING = 200, 600
"""Episodes of each setting."""
PENALTIES = (0.1, 1.0, 10.0, 100.0)
"""Inverse strengths of logistic regression's penalty."""
USUAL_PENALTY = 10.0
"""The one where there are no classes to choose on: that of the head that `innerloop new` makes, on unit features."""

ON_CPU = ("--device", "cpu", "--test-episodes", "2")
DISCRIMINANT = (
    *("--estimator", "discriminant", "--backbone", "adapter", "--backbone-set", "normalise=true"),
    *("--meta-batch", "1", "--queries", "20", "--iterations", "20", "--validate-every", "10"),
)
EPISODIC = ("--shots", "1", "--iterations", "400", "--validate-every", "100")
CANDIDATES: Mapping[str, tuple[str, Sequence[str]]] = {
    "discriminant, lr-d2": ("lr-d2", DISCRIMINANT),
    "discriminant, class means": ("protonet", DISCRIMINANT),
    "episodes, lr-d2": ("lr-d2", (*EPISODIC, "--learning-rate", "0.0001")),
    "episodes, class means": ("protonet", (*EPISODIC, "--learning-rate", "0.0001")),
}
"""Meta-trained heads: how the map behind the encoder is found, and what answers."""

WAYS: Mapping[str, tuple[str, ...]] = {
    "small photographs": ("--ways", "4", "--train-ways", "40"),
    "spoken digits": ("--ways", "5", "--train-ways", "5"),
    "intents": ("--ways", "5", "--train-ways", "25"),
}
"""Classes of validation and training episodes: all training classes, and no more than there are to choose on."""

SCRATCH: Mapping[str, tuple[str, ...]] = {
    "small photographs": (
        *("--ways", "4", "--shots", "1", "--train-ways", "20", "--queries", "5", "--meta-batch", "1"),
        *("--iterations", "2000", "--validate-every", "250", "--validation-episodes", "100"),
    ),
    "spoken digits": (
        *("--ways", "5", "--shots", "1", "--train-ways", "5", "--queries", "5", "--meta-batch", "1"),
        *("--iterations", "600", "--validate-every", "100", "--validation-episodes", "50"),
    ),
}
"""ProtoNet on Conv4 without an encoder, from pixels or from log-mel spectrograms."""

SHORT = {"small photographs": "photos", "clothes": "clothes", "spoken digits": "digits", "intents": "intents"}


@dataclass(frozen=True)
class Splits:
    """The classes to choose settings on, and unseen ones; None where there are none to choose on."""

    choosing: TaskSampler | None
    unseen: TaskSampler


def main() -> None:
    """Train, choose, measure, serve, and write the results after each data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_arguments(parser)
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    parser.add_argument("--served", type=int, default=TESTING, help="episodes of each setting through a server")
    given = parser.parse_args()
    torch.set_num_threads(1)
    sets = prepare(RUNS, given.photos, given.clothes, given.digits, given.intents)
    for name in given.only:
        figures = _measure(name, sets[name], given.jobs, given.served)
        protocol = (
            f"inductive, {TESTING} episodes of unseen classes, 15 queries a class, settings chosen on {CHOOSING} "
            "validation episodes"
        )
        write_figures(RESULTS, name, figures, protocol)


def write_figures(file: Path, name: str, figures: Mapping[str, Any], protocol: str) -> None:
    """Put the figures of one data set beside those of the others, which other processes may have written meanwhile."""
    results = json.loads(file.read_text())["results"] if file.is_file() else {}
    results[name] = figures
    ordered = {each: results[each] for each in SHORT if each in results}
    record = {"machine": describe_machine(), "protocol": protocol, "results": ordered}
    file.write_text(json.dumps(record, indent=2) + "\n")


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the data is, and which to measure on."""
    for name in ("photos", "clothes", "digits"):
        parser.add_argument(f"--{name}", type=Path, required=True, help=f"zip of {name}")
    parser.add_argument("--intents", type=Path, required=True, help="folder of BANKING77's train.csv and test.csv")
    parser.add_argument("--only", nargs="+", choices=SHORT, default=list(SHORT), help="data sets to measure")


def _measure(name: str, data: Data, jobs: int, served: int) -> dict[str, Any]:
    """All figures of one data set."""
    source = load_encoded(data.source, CPU, read_encoder(data.encoder))
    splits = splits_of(source, data)
    untrained = RUNS / f"{SHORT[name]}-new"
    if not untrained.exists():
        run_innerloop("new", f"{SHORT[name]}-new", "--encoder", data.encoder, "--out", str(untrained))
    folders = _train(name, data, jobs) if data.trains else {}
    values = {
        "class means": {key: _over(splits.unseen, SETTINGS[key], TESTING, _centroids) for key in SETTINGS},
        "innerloop new": {key: _bundle(untrained, splits.unseen, key, TESTING) for key in SETTINGS},
    }
    figures: dict[str, Any] = {"logistic regression": {}}
    for key in SETTINGS:
        regression, penalty = _logistic_regression(splits, key)
        figures["logistic regression"][key] = {**summary(regression), "penalty": penalty}
    for row, measured in values.items():
        figures[row] = {key: summary(each) for key, each in measured.items()}
    bundles = {"innerloop new": dict.fromkeys(SETTINGS, untrained)}
    if folders:
        bundles["meta-trained"] = {}
        figures["meta-trained"] = {}
        for key in SETTINGS:
            chosen = _chosen(folders, splits, key)
            bundles["meta-trained"][key] = folders[chosen] / "bundle"
            accuracies = {
                each: _bundle(folder / "bundle", splits.unseen, key, TESTING) for each, folder in folders.items()
            }
            best = accuracies[chosen]
            figures["meta-trained"][key] = {
                **summary(best),
                "chosen": chosen,
                "over": {row: summary(best - values[row][key]) for row in values},
                "candidates": {each: summary(accuracy) for each, accuracy in accuracies.items()},
            }
    if name in SCRATCH:
        figures["from scratch"] = _from_scratch(name, data)
    figures["served"] = _served(name, data, bundles, served)
    return {"data": source.description, "encoder": data.encoder, "settings": figures}


def splits_of(source: DataSource, data: Data) -> Splits:
    """The splits of a data set that figures need."""
    if data.trains:
        return Splits(source.validation, source.test)
    return Splits(None, source.train.joined(source.validation, source.test))


def _train(name: str, data: Data, jobs: int) -> dict[str, Path]:
    """The folder of each candidate's run."""
    folders = {each: RUNS / f"{SHORT[name]}-{each.replace(', ', '-').replace(' ', '-')}" for each in CANDIDATES}

    def train_one(candidate: str) -> None:
        method, options = CANDIDATES[candidate]
        behind = ("--data", data.source, "--encoder", data.encoder)
        train(folders[candidate], method, [*behind, *ON_CPU, *WAYS[name], *options])

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(train_one, CANDIDATES))
    return folders


def _chosen(folders: Mapping[str, Path], splits: Splits, key: str) -> str:
    """The candidate that answers best on classes to choose on; episodes have as many ways as there are such classes."""
    if splits.choosing is None:
        raise ValueError("there are no classes to choose on")
    choosing, ways = splits.choosing, min(5, len(splits.choosing.names))
    shape = EpisodeShape(ways, SETTINGS[key].shots, 15)

    def mean(candidate: str) -> float:
        bundle = load_bundle(folders[candidate] / "bundle")
        found = evaluate(bundle.learner, bundle.params, choosing, shape, split="", episodes=CHOOSING)
        return found.mean

    return max(folders, key=mean)


def _bundle(folder: Path, split: TaskSampler, key: str, episodes: int) -> Tensor:
    """Accuracy of each episode."""
    bundle = load_bundle(folder)
    return evaluate(bundle.learner, bundle.params, split, SETTINGS[key], split="", episodes=episodes).values


def _centroids(episodes: Episodes) -> Tensor:
    """Logits of the nearest class mean of features."""
    support = episodes.support
    means = support.shares(support.x.dtype).transpose(1, 2) @ support.x
    return -squared_distances(episodes.query.x, means)


def _logistic_regression(splits: Splits, key: str) -> tuple[Tensor, float]:
    """Accuracies of scikit-learn's classifier fitted to each support set, and the penalty chosen for it."""

    def with_penalty(penalty: float) -> Callable[[Episodes], Tensor]:
        def answer(episodes: Episodes) -> Tensor:
            tasks = zip(episodes.support.x, episodes.support.y, episodes.query.x, strict=True)
            return torch.stack([_fitted(penalty, x, y, query) for x, y, query in tasks])

        return answer

    choosing = splits.choosing
    if choosing is None:
        best = USUAL_PENALTY
    else:
        shape = EpisodeShape(min(5, len(choosing.names)), SETTINGS[key].shots, 15)
        validated = {
            penalty: _over(choosing, shape, CHOOSING, with_penalty(penalty)).mean().item() for penalty in PENALTIES
        }
        best = max(PENALTIES, key=lambda penalty: validated[penalty])
    return _over(splits.unseen, SETTINGS[key], TESTING, with_penalty(best)), best


def _fitted(penalty: float, x: Tensor, y: Tensor, query: Tensor) -> Tensor:
    """Scores [Q, W] of queries [Q, F] by a classifier of x [S, F], y [S].

    Its weights are sums of examples, so it is fitted in a basis of those, with far fewer numbers than F.
    """
    basis = torch.linalg.qr(x.T).Q  # [F, S]
    model = LogisticRegression(C=penalty, max_iter=1000).fit((x @ basis).numpy(), y.numpy())
    return torch.from_numpy(model.decision_function((query @ basis).numpy()))


def _over(split: TaskSampler, shape: EpisodeShape, episodes: int, answer: Callable[[Episodes], Tensor]) -> Tensor:
    """Accuracy of each episode, of those that bundles are measured on."""
    drawn = (split.sample(shape, tasks, generator) for tasks, generator in evaluation_batches(0, episodes))
    return torch.cat([score(answer(batch), batch) for batch in drawn]).double()


def _from_scratch(name: str, data: Data) -> dict[str, Any]:
    """Conv4 without an encoder."""
    folder = RUNS / f"{SHORT[name]}-conv4"
    train(folder, "protonet", ["--data", str(data.scratch), *SCRATCH[name], *ON_CPU])
    bundle = load_bundle(folder / "bundle")
    if bundle.manifest.encoder is None:
        source = load_source(str(data.scratch), CPU)
    else:
        source = load_for_encoder(str(data.scratch), CPU, open_bundled(bundle.manifest.encoder, bundle.files, CPU))
    row = read_rows(RunFolder(folder).log)[-1]
    figures: dict[str, Any] = {key: summary(_bundle(folder / "bundle", source.test, key, TESTING)) for key in SETTINGS}
    return {**figures, "options": " ".join(SCRATCH[name]), "minutes": row.seconds / 60, "threads": 1}


def _served(name: str, data: Data, bundles: Mapping[str, Mapping[str, Path]], episodes: int) -> dict[str, Any]:
    """Accuracies over the first episodes through a server that gets raw inputs, and in process over the same."""
    models = RUNS / f"{SHORT[name]}-models"
    figures: dict[str, Any] = {}
    for row, by_setting in bundles.items():
        for key, folder in by_setting.items():
            model = f"{SHORT[name]}-{row}-{key}".replace(" ", "-")
            if not (models / model).exists():
                run_innerloop("export", str(folder), "--out", str(models / model))
            figures.setdefault(row, {})[key] = {"model": model}
    encoder = read_encoder(data.encoder)
    encoded = splits_of(load_encoded(data.source, CPU, encoder), data).unseen
    manifest = load_bundle(next(iter(bundles["innerloop new"].values()))).manifest
    loaded = load_source(data.source, CPU, manifest.encoder)
    raw = splits_of(loaded, data).unseen
    if not isinstance(raw, ClassExamples):
        raise TypeError("these data sets consist of examples")
    with ServerProcess(models) as server, Client(server.target, timeout=120) as client:
        for row, by_setting in bundles.items():
            for key, folder in by_setting.items():
                entry = figures[row][key]
                accuracies = served_accuracies(
                    client,
                    entry.pop("model"),
                    raw,
                    SETTINGS[key],
                    episodes,
                    texts=loaded.texts,
                    rate=loaded.rate or None,
                )
                in_process = _bundle(folder, encoded, key, episodes)
                entry |= {
                    "episodes": episodes,
                    "served": float(accuracies.mean()),
                    "in_process": in_process.mean().item(),
                }
                print(f"{name}, {row}, {key}: {entry}", flush=True)
    return figures


def summary(values: Tensor) -> dict[str, float]:
    """The mean of values of each episode, and the half width of its 95% confidence interval."""
    return {"accuracy": values.mean().item(), "confidence_interval": confidence_interval(values)}


if __name__ == "__main__":
    main()
