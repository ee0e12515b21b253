"""The best models of Omniglot on unseen characters: in process, served, within one alphabet, and by several views.

    innerloop reproduce recipes/omniglot-alphabets.toml --data "omniglot:OMNIGLOT?split=alphabet&size=32"
    python benchmarks/records/run.py OMNIGLOT [--alphabets runs/omniglot-alphabets]

`random` is the model of the zoo, made by recipes/omniglot.toml, on the characters of the random split that it has never
seen; `alphabets` is that of the first command, on alphabets that it has never seen. Both answer 1,000 tasks of each
size. `served` asks a server about the first 200 of them, and `same` is what the model answers to these in process.
`within` asks `alphabets` about characters of one alphabet. Features of drawings depend on nothing else, so they are
computed once for all tasks.

`views` is what answering from several copies of each image would give: the features of an image are the mean of those
of the image and of itself moved by two pixels to each side, for five times the work of the backbone. The copies were
chosen with validation characters and another model. No server does this.

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
WITHIN = ("20-way 1-shot", "20-way 5-shot")
"""Sizes of the tasks within one alphabet."""

MOVES = ((0, 0), (-2, 0), (2, 0), (0, -2), (0, 2))
"""Pixels by which the views of an image are moved, down and to the right."""

PAIRS = (50, 200)
"""Numbers of pairs of characters by which errors are counted."""


def main() -> None:
    """Measure and write results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("omniglot", help="folder with images_background and images_evaluation")
    parser.add_argument("--alphabets", type=Path, default=ROOT / "runs" / "omniglot-alphabets", help="its run")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bundles = {"random": ROOT / "models" / "omniglot", "alphabets": arguments.alphabets / "bundle"}
    results = {}
    for split, path in bundles.items():
        bundle = load_bundle(path)
        data = f"omniglot:{arguments.omniglot}?split={split.rstrip('s')}&size={bundle.learner.spec.input.shape[-1]}"
        test = _test_split(data)
        one, several = _embedded(bundle, test, MOVES[:1]), _embedded(bundle, test, MOVES)
        results[split] = {
            "in process": {name: _figure(_accuracies(bundle, one, shape)) for name, shape in SHAPES.items()},
            "served": _served(path, test),
            "same": {
                name: _figure(_accuracies(bundle, one, shape, SERVED))["accuracy"] for name, shape in SHAPES.items()
            },
            "views": {name: _by_views(bundle, one, several, shape) for name, shape in SHAPES.items()},
            "look_alikes": _look_alikes(bundle, one),
        }
        if split == "alphabets":
            within = _embedded(bundle, _test_split(f"{data}&domains=alphabet"), MOVES[:1])
            results[split]["within"] = {name: _figure(_accuracies(bundle, within, SHAPES[name])) for name in WITHIN}
        print(split, json.dumps(results[split], indent=2), flush=True)
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
    """Accuracy in percent from the features of several views, and its gain over that of one, in the same tasks."""
    values, plain = (_accuracies(bundle, test, shape) for test in (several, one))
    gain = values - plain
    return {
        **_figure(values),
        "gain": 100 * gain.mean().item(),
        "gain_half_width": 100 * confidence_interval(gain),
    }


@torch.no_grad()
def _look_alikes(bundle: Bundle, test: ClassExamples) -> dict[str, Any]:
    """How many of the errors of 20-way 1-shot tasks fall on how few pairs of characters, in percent."""
    learner, shape = bundle.learner.on_features, SHAPES["20-way 1-shot"]
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
