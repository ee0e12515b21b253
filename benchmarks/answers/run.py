"""Unknown things and honest confidence: how well do calibrated answers hold on classes never seen?

    python benchmarks/answers/run.py OMNIGLOT [--banking77 BANKING77] [--small-photos ZIP] [--only NAMES]
        [--episodes 600] [--served 100] [--pairs 1500]

`protonet` and `anil` are trained for seconds on Omniglot (random split), on embedded glyphs, on small photographs (32
classes in the order of names) and, behind a frozen encoder of sentences, on BANKING77; each is calibrated with 1000
episodes of the classes of its validation split and measured on those of its test split, 5-way 1-shot and 5-shot,
inductive, 5 queries of each class and of five classes that the task has not. Runs are kept in runs/answers/ and
resumed. Reported are the area under the ROC curve of `known` and of the largest
probability, unknown queries against known ones; the share of known queries below the threshold for 5% false alarms; the
expected calibration error of plain and of calibrated probabilities; and coverage and size of label sets. `candidates`
are functions of the logits on validation classes, from which the features were chosen; boosted trees take all logits of
a query in order, and so show what there is to tell from them. The negative control
takes half of each class's own queries for unknown: its area must be 0.5. `validation` is how often sets hold the truth
on other episodes of the very classes that the calibration is made with: what is missing there is noise of the episodes,
and what is missing on test classes beyond that is how much these differ from those.

`served` asks a server for the same answers, through the SDK, about the first episodes of those (a tenth as many where
they are of texts): figures of what it says (`known`, thresholds, probabilities, sets), and those computed in this
process about the same episodes.

`maml` is trained on sine waves for intervals: how many values they hold, and how wide they are.

`left out` compares thresholds of label sets that follow from the examples of the task itself with those that are
calibrated over tasks, on halves of the validation classes (see left_out.py).

The cost is the time of a Predict with 15 queries, by turns, to a calibrated model and to the same model without its
calibration on one server, for a network of 16 channels and the usual one of 64: the ratio of the medians of both.
Each time it is measured adds a row. Writes results.json; intervals are 95% ones, half widths, from 100 resamplings of
the episodes (of the pairs, for the cost).
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingClassifier

from innerloop import Client
from innerloop_command.server_process import ServerProcess
from innerloop_learner import build_learner
from innerloop_learner.bundle import Bundle, load_bundle, save_bundle
from innerloop_learner.calibration import TaskCalibration, features, known
from innerloop_trainer.bundle_evaluation import load_source_of
from innerloop_trainer.calibration import ClassAnswers, answers_of_classes, calibrate_bundle, honesty
from innerloop_trainer.calibration.answers import errors_of_values
from innerloop_trainer.calibration.fit import fit_classes
from innerloop_trainer.calibration.measure import SHOWN_COVERAGES, area_under_curve
from innerloop_trainer.data import ClassExamples, DataSource, EpisodeShape, load_source
from innerloop_trainer.evaluation import confidence_interval

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from left_out import thresholds_of_left_out
from machine import describe_machine
from served_answers import served_figures
from training import train

ROOT = Path(__file__).resolve().parent.parent.parent
RUNS = ROOT / "runs" / "answers"
RESULTS = Path(__file__).with_name("results.json")

SHAPES = {f"5w{shots}s": EpisodeShape(5, shots, 5) for shots in (1, 5)}
SIZES = [(shape.ways, shape.shots) for shape in SHAPES.values()]
PHOTOS = "size=32&order=name&val=0.1875&test=0.3125"
"""Classes are divided by name: the first 32 train, the next 12 calibrate, and the last 20 are unseen."""

CPU = torch.device("cpu")
WIDTHS = (16, 64)
RESAMPLINGS, CHOOSING = 100, 200
WARM_UP = 50

COMMON = ["--queries", "5", "--validation-episodes", "50", "--test-episodes", "2", "--validate-every", "125"]
CALIBRATION = ["--calibration-episodes", "0"]
NETWORK = ["--backbone-set", "width=16", "--backbone-set", "downsample=stride", "--backbone-set", "norm=batch"]
ENCODED = ["--encoder", "all-minilm-l6-v2"]
REGRESSION = "maml-sinusoid"
WAVES = [
    "--shots",
    "10",
    "--iterations",
    "300",
    "--set",
    "rate=0.01",
    "--learning-rate",
    "0.001",
    "--validation-episodes",
    "100",
    "--test-episodes",
    "2",
]
METHODS = {
    "protonet": ["--train-ways", "10", "--meta-batch", "1"],
    "anil": ["--meta-batch", "4"],
}
IMAGES, TEXTS = [*NETWORK, "--iterations", "250", "--learning-rate", "0.004"], [*ENCODED, "--iterations", "300"]

Floats = NDArray[np.floating[Any]]


def main() -> None:
    """Train, calibrate, measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("omniglot", type=Path, help="folder with images_background.zip and images_evaluation.zip")
    parser.add_argument("--banking77", type=Path, help="folder with train.csv and test.csv; left out without")
    parser.add_argument("--small-photos", type=Path, help="zip of class folders of photographs; left out without")
    parser.add_argument("--only", nargs="+", help="such as protonet-glyphs; all by default")
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--served", type=int, default=100, help="episodes that a server is asked about")
    parser.add_argument("--pairs", type=int, default=1500, help="pairs of requests for the cost")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = {"omniglot": f"omniglot:{arguments.omniglot}?rotations=false", "glyphs": "glyphs"}
    if arguments.banking77:
        data["banking77"] = f"texts:{arguments.banking77}?label=category"
    if arguments.small_photos:
        data["small_photos"] = f"images:{arguments.small_photos}?{PHOTOS}"
    content = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"results": {}}
    for source, named in data.items():
        for method in METHODS:
            name = f"{method}-{source}"
            if arguments.only is None or name in arguments.only:
                bundle = _calibrated(_train(name, method, named), named, SIZES)
                splits = load_source_of(bundle, named, CPU)
                found = _measure(bundle, splits, arguments.episodes)
                for shape, figures in _served(bundle, named, arguments.served).items():
                    found[shape]["served"] = figures
                content["results"][name] = found
                content.setdefault("left out", {})[name] = thresholds_of_left_out(bundle, splits, arguments.episodes)
                _write(content, arguments)
    if arguments.only is None or REGRESSION in arguments.only:
        train(RUNS / REGRESSION, "maml", [*WAVES, *CALIBRATION, "--data", "sinusoid"])
        bundle = _calibrated(load_bundle(RUNS / REGRESSION / "bundle"), "sinusoid", [(0, 5), (0, 10)])
        content["results"][REGRESSION] = _measure_values(bundle, arguments.episodes)
        _write(content, arguments)
    if arguments.pairs:
        content.setdefault("cost", []).append(_cost(arguments.pairs))
        _write(content, arguments)


def _write(content: dict[str, Any], arguments: argparse.Namespace) -> None:
    content = {**content, "machine": describe_machine(), "episodes": arguments.episodes}
    RESULTS.write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps(content["results"], indent=2), flush=True)


def _train(name: str, method: str, data: str) -> Bundle:
    options = [*COMMON, *METHODS[method], *CALIBRATION, *(TEXTS if data.startswith("texts") else IMAGES)]
    train(RUNS / name, method, [*options, "--data", data])
    return load_bundle(RUNS / name / "bundle")


def _calibrated(bundle: Bundle, data: str, sizes: list[tuple[int, int]]) -> Bundle:
    manifest = calibrate_bundle(bundle, data, CPU, sizes=sizes)
    return replace(bundle, manifest=manifest)


def _measure(bundle: Bundle, source: DataSource, episodes: int) -> dict[str, Any]:
    calibration = bundle.manifest.calibration
    if calibration is None:
        raise SystemExit(f"{bundle.manifest.name} is not calibrated")
    found = {}
    for name, shape in SHAPES.items():
        answers = answers_of_classes(bundle.learner, bundle.params, source.test, shape, episodes=episodes, seed=1)
        figures = _figures(answers, calibration.at(shape.ways, shape.shots))
        asked = (bundle.learner, bundle.params, source.validation, shape)
        again = answers_of_classes(*asked, episodes=episodes, seed=4)
        validation = _figures(again, calibration.at(shape.ways, shape.shots))
        coverage = {each: value for each, value in validation.items() if each.startswith(("coverage", "accuracy"))}
        found[name] = {**figures, "validation": coverage, "candidates": _candidates(bundle, source, shape)}
    return found


def _served(bundle: Bundle, data: str, episodes: int) -> dict[str, Any]:
    """Figures of what a server answers, and of what this process does, about the first episodes of a test split."""
    calibration, encoder = bundle.manifest.calibration, bundle.manifest.encoder
    raw, source = load_source(data, CPU, encoder).test, load_source_of(bundle, data, CPU).test
    if calibration is None or not isinstance(raw, ClassExamples):
        raise SystemExit(f"{bundle.manifest.name} can't be measured on a server")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        save_bundle(Path(folder) / "model", bundle.manifest, bundle.params, bundle.files)
        with (
            ServerProcess(Path(folder), start_seconds=300, threads=1, lanes=1) as server,
            Client(server.target) as client,
        ):
            texts = encoder is not None and encoder.input == "texts"
            episodes = episodes // 10 if texts else episodes  # each text is encoded anew for each of three coverages
            for name, shape in SHAPES.items():
                figures = served_figures(client, "model", raw, shape, episodes, texts=texts)
                asked = (bundle.learner, bundle.params, source, shape)
                answers = answers_of_classes(*asked, episodes=episodes, seed=1)
                chosen = np.arange(len(answers.logits))
                here = _figures_of(answers, calibration.at(shape.ways, shape.shots), chosen)
                found[name] = {each: [value, round(here[each], 5)] for each, value in figures.items()}
    return found


def _measure_values(bundle: Bundle, episodes: int) -> dict[str, Any]:
    """Coverage and width of intervals of a regression, over unseen waves."""
    calibration, test, found = bundle.manifest.calibration, load_source("sinusoid").test, {}
    if calibration is None:
        raise SystemExit(f"{REGRESSION} is not calibrated")
    for shots in (5, 10):
        shape = EpisodeShape(1, shots, 15)
        errors = errors_of_values(bundle.learner, bundle.params, test, shape, episodes=episodes, seed=1)
        figures = {}
        for level in SHOWN_COVERAGES:
            width = calibration.at(0, shots).quantile(level)
            covered = torch.from_numpy((errors <= width).mean(1))
            interval = [round(covered.mean().item(), 5), round(confidence_interval(covered), 5)]
            figures[f"{level:.0%}"] = {"coverage": interval, "width": round(2 * width, 3)}
        squares = torch.from_numpy(errors.astype(np.float64) ** 2).mean(1)
        measured = [round(squares.mean().item(), 4), round(confidence_interval(squares), 4)]
        figures["variance"] = {"stated": round(calibration.at(0, shots).variance or 0.0, 4), "measured": measured}
        found[f"{shots} shots"] = figures
    return found


def _figures(answers: ClassAnswers, calibration: TaskCalibration) -> dict[str, list[float]]:
    """Each figure over all episodes, and the half width of its interval."""
    episodes, random = len(answers.logits), np.random.default_rng(0)
    resampled = [_figures_of(answers, calibration, random.integers(0, episodes, episodes)) for _ in range(RESAMPLINGS)]
    return {
        name: [round(value, 5), round(1.96 * float(np.std([each[name] for each in resampled])), 5)]
        for name, value in _figures_of(answers, calibration, np.arange(episodes)).items()
    }


def _figures_of(answers: ClassAnswers, calibration: TaskCalibration, chosen: NDArray[np.int64]) -> dict[str, float]:
    some = ClassAnswers(answers.logits[chosen], answers.targets[chosen], answers.unknown[chosen])
    found, sure = asdict(honesty(some, calibration)), known(some.logits, calibration)
    figures = {name: value for name, value in found.items() if isinstance(value, float)}
    figures["separation - baseline"] = found["separation"] - found["baseline"]
    for name in ("coverage", "size"):
        figures |= {f"{name} at {level:.0%}": value for level, value in found[name].items()}
    figures["accuracy"] = float((some.logits.argmax(-1) == some.targets).mean())
    figures["control"] = area_under_curve(sure[:, ::2], sure[:, 1::2])  # queries lie grouped by class
    return figures


def _candidates(bundle: Bundle, source: DataSource, shape: EpisodeShape) -> dict[str, float]:
    """Areas under the curve of functions of the logits on validation classes: what is fitted sees other episodes."""
    asked = (bundle.learner, bundle.params, source.validation, replace(shape, queries=3))
    seen = answers_of_classes(*asked, episodes=CHOOSING, seed=2)
    fitted, trees = fit_classes(seen, shape.shots), _fit_trees(seen)
    answers = answers_of_classes(*asked, episodes=CHOOSING, seed=3)
    functions: dict[str, Callable[[Floats], Floats]] = {
        "largest logit": lambda logits: logits.max(-1),
        "energy": lambda logits: np.logaddexp.reduce(logits.astype(np.float64), axis=-1),
        "largest probability": lambda logits: features(logits, 1.0)[..., 1],
        "margin": lambda logits: np.partition(logits, -2, -1)[..., -1] - np.partition(logits, -2, -1)[..., -2],
        "three features": lambda logits: known(logits, fitted),
        "boosted trees": lambda logits: trees.decision_function(_in_order(logits)),
    }
    return {
        name: round(area_under_curve(function(answers.logits), function(answers.unknown)), 5)
        for name, function in functions.items()
    }


def _fit_trees(answers: ClassAnswers) -> GradientBoostingClassifier:
    """A classifier of known queries that may use all of their logits in order: what could be told from them at all."""
    x = np.concatenate([_in_order(answers.logits), _in_order(answers.unknown)])
    y = np.arange(len(x)) < answers.logits[..., 0].size
    return GradientBoostingClassifier(n_estimators=60, random_state=0).fit(x, y)


def _in_order(logits: Floats) -> Floats:
    """Logits of all queries [E * Q, W], each query's in ascending order."""
    return np.sort(logits.reshape(-1, logits.shape[-1]), axis=-1)


def _cost(pairs: int) -> dict[str, Any]:
    """Times of a Predict with and without a calibration, in milliseconds, by turns, for each method and width."""
    found = {}
    for method in METHODS:
        bundle = _calibrated(load_bundle(RUNS / f"{method}-glyphs" / "bundle"), "glyphs", [SIZES[0]])
        for width in WIDTHS:
            found[f"{method}, {width} channels"] = _cost_of(_of_width(bundle, width), pairs)
    return found


def _of_width(bundle: Bundle, width: int) -> Bundle:
    """A bundle with an untrained network of that width, whose answers take as long as those of a trained one."""
    spec = bundle.manifest.learner
    spec = replace(spec, backbone_settings={**spec.backbone_settings, "width": width})
    learner = build_learner(spec)
    manifest = replace(bundle.manifest, learner=spec, traits=None)
    return Bundle(manifest, learner, learner.init(torch.Generator().manual_seed(0)))


def _cost_of(bundle: Bundle, pairs: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        save_bundle(models / "with", bundle.manifest, bundle.params)
        save_bundle(models / "without", replace(bundle.manifest, calibration=None), bundle.params)
        with ServerProcess(models, threads=1, lanes=1) as server, Client(server.target) as client:
            return _by_turns(client, pairs)


def _by_turns(client: Client, pairs: int) -> dict[str, Any]:
    random = np.random.default_rng(0)
    shape = client.model("with").input_shape
    support, query = (random.integers(0, 256, (count, *shape), dtype=np.uint8) for count in (5, 15))
    asked = {name: client.adapt(name, support, list("abcde")) for name in ("with", "without")}
    times: dict[str, list[float]] = {name: [] for name in asked}
    for turn in range(WARM_UP + pairs):
        for name in sorted(asked, reverse=bool(turn % 2)):
            begun = perf_counter()
            asked[name].predict(query)
            times[name].append(1e3 * (perf_counter() - begun))
    measured = {name: np.array(all_times[WARM_UP:]) for name, all_times in times.items()}
    ratios = []
    for _ in range(RESAMPLINGS):
        chosen = random.integers(0, pairs, pairs)
        ratios.append(float(np.median(measured["with"][chosen]) / np.median(measured["without"][chosen])))
    medians = {name: round(float(np.median(each)), 4) for name, each in measured.items()}
    return {
        **medians,
        "ratio": [round(medians["with"] / medians["without"], 4), round(1.96 * float(np.std(ratios)), 4)],
    }


if __name__ == "__main__":
    main()
