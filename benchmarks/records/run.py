"""The best models of Omniglot on unseen characters: in process, served, within one alphabet, and by several views.

    innerloop reproduce recipes/omniglot-alphabets.toml --data "omniglot:OMNIGLOT?split=alphabet&size=32"
    innerloop reproduce recipes/omniglot-one-alphabet.toml \
        --data "omniglot:OMNIGLOT?split=alphabet&size=32&domains=alphabet"
    python benchmarks/records/run.py OMNIGLOT [--runs runs]

`random` is the model of the zoo, made by recipes/omniglot.toml, on the characters of the random split that it has never
seen; `alphabets` is that of the first command, on alphabets that it has never seen, and `one-alphabet` that of the
second, which goes on from there with tasks within one alphabet. All answer 1,000 tasks of each size.
`served` asks a server about the first 200 of them, and `same` is what the model answers to these in process. `within`
asks both models of the alphabet split about 20 characters of one unseen alphabet; `by alphabet` has the accuracy at one
shot in each alphabet that has as many. Features of drawings depend on nothing else, so they are computed once for all
tasks. A model whose run is not there, or not finished, keeps the figures that it has.

`views` is what answering from several copies of each image would give: the features of an image are the mean of those
of the image and of itself moved by two pixels to each side, for five times the work of the backbone. `support` has such
features for support examples alone, so that queries cost what they cost now. The copies were chosen with validation
characters and another model. No server does either.

`look_alikes` says where errors come from: how many fall on how few pairs of characters. Pairs are ranked by half of
10,000 20-way 1-shot tasks, and errors are counted in the other half. Writes results.json.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop import Client
from innerloop_command.server_process import ServerProcess
from innerloop_learner.bundle import Bundle, load_bundle
from innerloop_trainer.data import ClassExamples, EpisodeShape, load_source
from innerloop_trainer.evaluation import confidence_interval, evaluate, evaluation_batches
from innerloop_trainer.runs.folder import RunFolder

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from asked import embedded
from machine import describe_machine
from served import served_accuracies

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = Path(__file__).with_name("results.json")
EPISODES, SERVED, RANKING_EPISODES = 1000, 200, 10000
SHAPES = {
    "5-way 1-shot": EpisodeShape(5, 1, 15),
    "5-way 5-shot": EpisodeShape(5, 5, 15),
    "20-way 1-shot": EpisodeShape(20, 1, 5),
    "20-way 5-shot": EpisodeShape(20, 5, 5),
}
ONE_SHOT = "20-way 1-shot"
WITHIN = (ONE_SHOT, "20-way 5-shot")
"""Sizes of the tasks within one alphabet."""

MOVES = ((0, 0), (-2, 0), (2, 0), (0, -2), (0, 2))
"""Pixels by which the views of an image are moved, down and to the right."""

PAIRS = (50, 200)
"""Numbers of pairs of characters by which errors are counted."""


def main() -> None:
    """Measure and write results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("omniglot", help="folder with images_background and images_evaluation")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="folder of the runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    models = {"random": (ROOT / "models" / "omniglot", "random")}
    for name in ("alphabets", "one-alphabet"):
        run = RunFolder(arguments.runs / f"omniglot-{name}")
        if run.report.is_file():  # a run that goes on has a bundle, too
            models[name] = (run.bundle, "alphabet")
        else:
            print(f"{name} keeps its figures: there is no finished run in {run.path}", flush=True)
    results = json.loads(RESULTS.read_text())["results"] if RESULTS.is_file() else {}
    for name, (path, split) in models.items():
        bundle = load_bundle(path)
        data = f"omniglot:{arguments.omniglot}?split={split}&size={bundle.learner.spec.input.shape[-1]}"
        test = _test_split(data)
        one, several = _embedded(bundle, test, MOVES[:1]), _embedded(bundle, test, MOVES)
        results[name] = {
            "in process": {size: _figure(_accuracies(bundle, one, shape)) for size, shape in SHAPES.items()},
            "served": _served(path, test),
            "same": {
                size: _figure(_accuracies(bundle, one, shape, SERVED))["accuracy"] for size, shape in SHAPES.items()
            },
            "views": {size: _by_views(bundle, one, several, shape) for size, shape in SHAPES.items()},
            "look_alikes": _look_alikes(bundle, one),
        }
        if split == "alphabet":
            results[name]["within"] = _within(bundle, _test_split(f"{data}&domains=alphabet"))
        print(name, json.dumps(results[name], indent=2), flush=True)
        content = {"machine": describe_machine(), "episodes": EPISODES, "results": results}
        RESULTS.write_text(json.dumps(content, indent=2) + "\n")


def _test_split(data: str) -> ClassExamples:
    test = load_source(data).test
    assert isinstance(test, ClassExamples)
    return test


def _accuracies(bundle: Bundle, test: ClassExamples, shape: EpisodeShape, episodes: int = EPISODES) -> Tensor:
    """Accuracy of each task [E], from features."""
    learner = bundle.learner.on_features
    return evaluate(learner, bundle.params, test, shape, split="test", episodes=episodes).values


def _figure(values: Tensor) -> dict[str, float]:
    """Mean and the half width of its interval, in percent."""
    return {"accuracy": 100 * values.mean().item(), "half_width": 100 * confidence_interval(values)}


def _served(path: Path, test: ClassExamples) -> dict[str, float]:
    """Accuracy of a server in percent, which is sent the images of the same tasks as uint8."""
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        (models / "characters").symlink_to(path.resolve())
        with ServerProcess(models) as server, Client(server.target, timeout=60) as client:
            return {
                name: 100 * float(served_accuracies(client, "characters", test, shape, SERVED).mean())
                for name, shape in SHAPES.items()
            }


@torch.no_grad()
def _embedded(bundle: Bundle, test: ClassExamples, moves: Sequence[tuple[int, int]]) -> ClassExamples:
    """The split with features [F] as inputs: for each image the mean of those of the image moved so."""
    learner = bundle.learner
    return embedded(test, learner.spec.input, lambda x: _features(bundle, x, moves), learner.backbone.features)


def _features(bundle: Bundle, x: Tensor, moves: Sequence[tuple[int, int]]) -> Tensor:
    """Mean features [N, F] of images x [N, C, H, W] that are moved so; paper, which is 0, comes in."""
    height, width = x.shape[-2:]
    edge = max(abs(pixels) for move in MOVES for pixels in move)
    padded, backbone = F.pad(x, [edge] * 4), bundle.learner.backbone
    views = []
    for down, right in moves:
        view = padded[None, ..., edge - down : edge - down + height, edge - right : edge - right + width]
        views.append(backbone.apply(bundle.params, view, torch.ones(1, len(x))).values[0])
    return torch.stack(views).mean(0)


def _by_views(bundle: Bundle, one: ClassExamples, several: ClassExamples, shape: EpisodeShape) -> dict[str, float]:
    """Accuracy in percent from the features of several views, and what several gain over one, in the same tasks.

    `gain` is that of several views of all images, `support` that of several of support examples alone.
    """
    plain = _accuracies(bundle, one, shape)
    values = {"gain": _accuracies(bundle, several, shape), "support": _by_tasks(bundle, several, one, shape)[0]}
    gains = {name: _figure(each - plain) for name, each in values.items()}
    return {
        **_figure(values["gain"]),
        **{name: each["accuracy"] for name, each in gains.items()},
        **{f"{name}_half_width": each["half_width"] for name, each in gains.items()},
    }


def _within(bundle: Bundle, test: ClassExamples) -> dict[str, Any]:
    """Accuracy in percent within one alphabet: in process, by several views, and by alphabet at one shot."""
    one, several = _embedded(bundle, test, MOVES[:1]), _embedded(bundle, test, MOVES)
    values, classes = _by_tasks(bundle, one, one, SHAPES[ONE_SHOT])
    tasks: dict[str, list[float]] = {}
    for value, number in zip(values.tolist(), classes.tolist(), strict=True):
        tasks.setdefault(test.names[number].split("/")[0], []).append(100 * value)
    means = {alphabet: sum(each) / len(each) for alphabet, each in tasks.items()}
    return {
        "in process": {size: _figure(_accuracies(bundle, one, SHAPES[size])) for size in WITHIN},
        "views": {size: _by_views(bundle, one, several, SHAPES[size]) for size in WITHIN},
        "by alphabet": dict(sorted(means.items(), key=lambda item: item[1])),
    }


@torch.no_grad()
def _by_tasks(
    bundle: Bundle, learned: ClassExamples, asked: ClassExamples, shape: EpisodeShape
) -> tuple[Tensor, Tensor]:
    """Accuracy [E] of each of the tasks that `_accuracies` asks about, and one of the classes of each [E].

    Args:
        bundle: the model.
        learned: the split with the features that support examples have.
        asked: the split with the features that queries have.
        shape: size of the tasks.
    """
    learner = bundle.learner.on_features
    values, classes = [], []
    draws = zip(evaluation_batches(0, EPISODES), evaluation_batches(0, EPISODES), strict=True)
    for (tasks, generator), (_, again) in draws:
        support, episodes = learned.sample(shape, tasks, generator).support, asked.sample(shape, tasks, again)
        state = learner.adapt(bundle.params, support).state
        answers = learner.predict(bundle.params, state, episodes.query).argmax(-1)
        assert episodes.classes is not None
        values.append((answers == episodes.targets).float().mean(-1))
        classes.append(episodes.classes[:, 0])
    return torch.cat(values), torch.cat(classes)


@torch.no_grad()
def _look_alikes(bundle: Bundle, test: ClassExamples) -> dict[str, Any]:
    """How many of the errors of 20-way 1-shot tasks fall on how few pairs of characters, in percent."""
    learner, shape = bundle.learner.on_features, SHAPES[ONE_SHOT]
    halves: list[Counter[tuple[int, int]]] = [Counter(), Counter()]
    for number, (tasks, generator) in enumerate(evaluation_batches(0, RANKING_EPISODES)):
        episodes = test.sample(shape, tasks, generator)
        state = learner.adapt(bundle.params, episodes.support).state
        answers = learner.predict(bundle.params, state, episodes.query).argmax(-1)
        assert episodes.classes is not None
        given, true = (episodes.classes.gather(1, labels) for labels in (answers, episodes.targets))
        wrong = given != true
        for one, other in zip(given[wrong].tolist(), true[wrong].tolist(), strict=True):
            halves[number % 2][min(one, other), max(one, other)] += 1
    ranked = [pair for pair, _ in halves[0].most_common()]
    errors, classes = halves[1].total(), len(test.names)
    return {
        "pairs": classes * (classes - 1) // 2,
        "errors": 100 * errors / (RANKING_EPISODES // 2 * shape.ways * shape.queries),
        **{f"share of {most}": 100 * sum(halves[1][pair] for pair in ranked[:most]) / errors for most in PAIRS},
        "worst": [[test.names[one], test.names[other]] for one, other in ranked[:10]],
    }


if __name__ == "__main__":
    main()
