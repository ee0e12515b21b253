"""Hundreds of characters, one by one: `oml` and `anml` beside what their papers compare with, and beside class means.

    python benchmarks/lifelong/run.py PATH_OF_OMNIGLOT [--jobs 1]

Training: strided Conv4-32 on the background alphabets (`?split=alphabet`) but those for validation, and rotations. All
arms but `random` and `pre-trained` start from one prototypical network of 800 outer steps and take 250 more, on 120
images each; `random` is untrained, and `pre-trained` is a classifier of all training characters after as many steps on
as many images. Nothing is chosen by validation but the rate of each arm's head, out of five, after the 147 classes for
validation.

Test: sequences of 600 characters of the evaluation alphabets, five examples of each, in one pass, a hundred examples at
a time into the same task state (`Learner.extend`); five other drawings of every class so far are asked about. Arms see
the same five sequences. `shuffled order` is the oracle: all examples so far come in random order. The negative control
learns labels drawn from the classes so far. Finished arms are kept in runs/lifelong/ (half a minute each). Writes
results.json: accuracy of all classes so far in per cent, and differences between arms sequence by sequence, with half
widths of 95% confidence intervals over sequences.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from innerloop_learner import Episodes, Learner, LearnerSpec, Params, Query, Support, build_learner
from innerloop_learner.acceleration import accelerated
from innerloop_learner.host_memory import keep_freed_memory
from innerloop_learner.objectives import build_objective
from innerloop_learner.online_head import LOG_RATE
from innerloop_trainer.data import DataSource, EpisodeShape, TaskSampler, load_source
from innerloop_trainer.evaluation import confidence_interval
from innerloop_trainer.outer_loop import OptimizerPlan, OuterLoop, build_estimator
from innerloop_trainer.seeds import generator_for

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine

ROOT = Path(__file__).resolve().parent.parent.parent
RUNS = ROOT / "runs" / "lifelong"
RESULTS = Path(__file__).with_name("results.json")
CLASSES = (10, 50, 100, 200, 400, 600)
"""Numbers of classes after which all classes so far are asked about."""

SHUFFLED = (100, 600)
"""The same for the oracle, which learns all examples again each time."""

SEQUENCES, SHOTS, QUERIES = 5, 5, 5
AT_ONCE, QUERIES_AT_ONCE = 100, 500
"""Examples that are learned by one call, and queries that are asked by one, which bounds memory."""

RATES = (0.001, 0.003, 0.01, 0.03, 0.1)
START = "protonet, the start"


@dataclass(frozen=True)
class Training:
    """How the parameters of some arms are made.

    Attributes:
        method: registered name.
        episodes: shape of the episodes.
        iterations: outer steps.
        learning_rate: outer rate.
        settings: of the method.
        training: of its objective.
        start: name of the training whose parameters it starts from; none if it starts from random ones.
    """

    method: str
    episodes: EpisodeShape
    iterations: int = 250
    learning_rate: float = 0.001
    settings: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    start: str = START


ONLINE = Training("oml", EpisodeShape(30, 3, 1))
TRAININGS = {
    START: Training("protonet", EpisodeShape(30, 2, 2), 800, 0.003, start=""),
    "random": replace(ONLINE, iterations=0, start=""),
    "pre-trained": Training("nearest-centroid", ONLINE.episodes, 1050, 0.003, start=""),
    "protonet": replace(ONLINE, method="protonet"),
    "oml": ONLINE,
    "oml, trajectory": replace(ONLINE, training={"trajectory": 3}),
    "oml, ewc": replace(ONLINE, settings={"importance": "ewc"}),
    "oml, mas": replace(ONLINE, settings={"importance": "mas"}),
    "anml": replace(ONLINE, method="anml"),
}


@dataclass(frozen=True)
class Arm:
    """What learns the sequences.

    Attributes:
        training: name of the training whose parameters it takes.
        method: registered name of what learns, with these parameters.
        order: of the examples: class by class, or shuffled.
        wrong: whether labels are wrong.
    """

    training: str
    method: str
    order: str = "by class"
    wrong: bool = False


ARMS = {
    "oml": Arm("oml", "oml"),
    "oml, trajectory": Arm("oml, trajectory", "oml"),
    "oml, ewc": Arm("oml, ewc", "oml"),
    "oml, mas": Arm("oml, mas", "oml"),
    "anml": Arm("anml", "anml"),
    "random": Arm("random", "oml"),
    "pre-trained": Arm("pre-trained", "oml"),
    "protonet's features": Arm("protonet", "oml"),
    "oml, shuffled order": Arm("oml", "oml", order="shuffled"),
    "oml, wrong labels": Arm("oml", "oml", wrong=True),
    "class means of oml's features": Arm("oml", "nearest-centroid"),
    "protonet": Arm("protonet", "protonet"),
}
DIFFERENCES = (
    ("oml", "pre-trained"),
    ("oml", "protonet's features"),
    ("oml", "oml, shuffled order"),
    ("oml", "protonet"),
    ("oml, trajectory", "oml"),
    ("oml, ewc", "oml"),
    ("oml, ewc", "oml, shuffled order"),
    ("oml, mas", "oml"),
    ("anml", "oml"),
)


def main() -> None:
    """Train, measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("omniglot", type=Path, help="folder with images_background.zip and images_evaluation.zip")
    parser.add_argument("--jobs", type=int, default=1, help="arms at the same time")
    arguments = parser.parse_args()
    RUNS.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as pool:
        first = [name for name, training in TRAININGS.items() if not training.start]
        for names in (first, [name for name in TRAININGS if name not in first]):
            list(pool.map(partial(_trained, arguments.omniglot), names))
        measured = dict(zip(ARMS, pool.map(partial(_measured, arguments.omniglot), ARMS), strict=True))
    results = {name: _figures(found) for name, found in measured.items()}
    differences = {f"{one} - {other}": _differences(measured[one], measured[other]) for one, other in DIFFERENCES}
    content = {
        "machine": describe_machine(),
        "sequences": SEQUENCES,
        "examples per class": SHOTS,
        "results": results,
        "differences": differences,
    }
    RESULTS.write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps(content, indent=2))


def _source(omniglot: Path) -> DataSource:
    torch.set_num_threads(1)
    keep_freed_memory()
    return load_source(f"omniglot:{omniglot}?split=alphabet")


def _spec(source: DataSource, method: str, settings: Mapping[str, Any]) -> LearnerSpec:
    backbone = {"width": 32, "downsample": "stride", "norm": "batch"}
    names = len(source.train.names)
    return LearnerSpec(
        method, source.input, max_ways=600, train_classes=names, backbone_settings=backbone, settings=settings
    )


def _trained(omniglot: Path, name: str) -> Params:
    """The parameters of a training, made now or before."""
    file = RUNS / f"{name}.pt"
    if not file.is_file():
        torch.save(_train(_source(omniglot), TRAININGS[name]), file)
    return torch.load(file, weights_only=True)


def _train(source: DataSource, training: Training) -> Params:
    learner = accelerated(build_learner(_spec(source, training.method, training.settings)), "cpu")
    objective = build_objective(learner, training.training)
    generator = generator_for(0, "initialisation")
    params = {**learner.init(generator), **objective.init(generator)}
    if training.start:
        given = torch.load(RUNS / f"{training.start}.pt", weights_only=True)
        params = {name: given.get(name, value) for name, value in params.items()}
    plan = OptimizerPlan(max(training.iterations, 1), training.learning_rate, gradient_clip=10.0)
    loop = OuterLoop(build_estimator("backpropagation", objective, {}), params, plan, seed=0)
    for iteration in range(training.iterations):
        loop.step(source.train.sample(training.episodes, 1, generator_for(0, "training", iteration)), iteration)
    return {name: loop.params[name].detach() for name in learner.init(generator)}


def _measured(omniglot: Path, name: str) -> dict[str, Any]:
    """The rate of an arm, and its accuracies after each number of classes [sequences], measured now or before."""
    file = RUNS / f"{name}.json"
    if not file.is_file():
        file.write_text(json.dumps(_measure(_source(omniglot), ARMS[name], _trained(omniglot, ARMS[name].training))))
    return json.loads(file.read_text())


def _measure(source: DataSource, arm: Arm, params: Params) -> dict[str, Any]:
    settings = TRAININGS[arm.training].settings if arm.method in ("oml", "anml") else {}
    learner = accelerated(build_learner(_spec(source, arm.method, settings)), "cpu")
    fresh = learner.init(generator_for(0, "initialisation"))
    params = {name: params.get(name, value) for name, value in fresh.items()}
    found: dict[str, Any] = {}
    if LOG_RATE in params:
        found["learned rate"] = params[LOG_RATE].exp().item()
        rate = _chosen_rate(learner, params, source.validation)
        found["rate"] = rate
        params = {**params, LOG_RATE: torch.tensor(math.log(rate))}
    sequences = _sequences(source.test, CLASSES[-1], SEQUENCES, "test")
    checkpoints = SHUFFLED if arm.order == "shuffled" else CLASSES
    return {**found, "accuracy": _accuracies(learner, params, sequences, checkpoints, arm)}


def _sequences(split: TaskSampler, classes: int, count: int, purpose: str) -> Episodes:
    """Tasks of so many classes; the support set of each comes class by class."""
    shape = EpisodeShape(classes, SHOTS, QUERIES)
    episodes = split.sample(shape, count, generator_for(0, f"lifelong {purpose}"))
    support = episodes.support
    order = support.y.argsort(dim=1, stable=True)
    x = torch.stack([own[rows] for own, rows in zip(support.x, order, strict=True)])
    return replace(episodes, support=replace(support, x=x, y=support.y.gather(1, order)))


def _chosen_rate(learner: Learner, params: Params, validation: TaskSampler) -> float:
    """The rate that is best after all classes for validation."""
    classes = len(validation.names)
    sequences = _sequences(validation, classes, 1, "validation")

    def accuracy(rate: float) -> float:
        tried = {**params, LOG_RATE: torch.tensor(math.log(rate))}
        return _accuracies(learner, tried, sequences, (classes,), Arm("", ""))[str(classes)][0]

    return max(RATES, key=accuracy)


@torch.no_grad()
def _accuracies(
    learner: Learner, params: Params, sequences: Episodes, checkpoints: Sequence[int], arm: Arm
) -> dict[str, list[float]]:
    """Accuracy on all classes so far, for each number of classes and sequence."""
    found, support = {}, sequences.support
    if arm.wrong:
        drawn = torch.rand(support.y.shape, generator=generator_for(0, "wrong labels"))
        support = replace(support, y=(drawn * (support.y + 1)).long())
    state, done = None, 0
    for classes in checkpoints:
        if arm.order == "shuffled":
            state, done = None, 0
        for part in _parts(support, done, classes, shuffled=arm.order == "shuffled"):
            learned = learner.adapt(params, part) if state is None else learner.extend(params, state, part)
            state = learned.state
        done = classes
        assert state is not None
        found[str(classes)] = _right(partial(learner.predict, params, state), sequences, classes)
    return found


def _parts(support: Support, start: int, end: int, *, shuffled: bool) -> Iterator[Support]:
    """The examples of classes from `start` to `end`, some at a time, as tasks of `end` classes."""
    ways = torch.full_like(support.ways, end)
    rows = torch.arange(start * SHOTS, end * SHOTS)
    if shuffled:
        rows = rows[torch.randperm(len(rows), generator=generator_for(0, "order"))]
    for some in rows.split(AT_ONCE):
        yield Support(support.x[:, some], support.y[:, some], support.mask[:, some], ways, end)


def _right(predict: Callable[[Query], Tensor], sequences: Episodes, classes: int) -> list[float]:
    """Share of the queries of the first classes that are answered rightly, for each sequence."""
    query, targets = sequences.query, sequences.targets[:, : classes * QUERIES]
    right = [
        predict(Query(query.x[:, some], query.mask[:, some])).argmax(-1) == targets[:, some]
        for some in torch.arange(targets.shape[1]).split(QUERIES_AT_ONCE)
    ]
    return torch.cat(right, 1).double().mean(1).tolist()


def _figures(found: Mapping[str, Any]) -> dict[str, Any]:
    accuracy = {classes: _per_cent(torch.tensor(values)) for classes, values in found["accuracy"].items()}
    return {**{name: value for name, value in found.items() if name != "accuracy"}, "accuracy": accuracy}


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, list[float]]:
    ours, theirs = one["accuracy"], other["accuracy"]
    both = [name for name in ours if name in theirs]
    return {name: _per_cent(torch.tensor(ours[name]) - torch.tensor(theirs[name])) for name in both}


def _per_cent(values: Tensor) -> list[float]:
    """Mean and half width of its 95% confidence interval."""
    return [round(100 * values.mean().item(), 2), round(100 * confidence_interval(values), 2)]


if __name__ == "__main__":
    main()
