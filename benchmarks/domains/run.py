"""Domains that were never trained on: MLDG and feature-wise transformations beside pooled training.

    python benchmarks/domains/run.py OMNIGLOT [--banking77 BANKING77] [--cases alphabets fonts digits ...] [--jobs 1]

All sides train ProtoNet with the same network, at the same outer rate, on the same episodes, each of one domain.
`pooled` averages over domains; `longer` does the same in 2.3 times as many steps, about the time of `mldg`; `mldg`
holds domains out; `fixed` transforms features at random; and `learned` has the held-out domains teach how much. Images
go through strided Conv4-32 with group norm. Intents, in topics (see topics.py), are features of a frozen encoder of
sentences, and go through two layers with layer norm; `features` are class means of these features, without training.
All else is as usual, and nothing was tuned. Each is measured on 600 episodes of unseen classes of domains that were
never trained on, the same for all sides; gains are those of one episode after the other, with intervals over the
episodes for these seeds, and over seeds. As a control, classes get domains at random, and `mldg` is compared with
`pooled` on such episodes. Losses are those of the last tenth of training; under `mldg` they add up those of both parts.
Seconds are those of one thread's processor time. Finished runs are kept in runs/domains/ and not made again. Writes
results.json.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner import LearnerSpec, build_learner
from innerloop_learner.acceleration import accelerated
from innerloop_learner.host_memory import keep_freed_memory
from innerloop_learner.objectives import build_objective
from innerloop_learner.objectives.transformed import Transformed
from innerloop_learner.transformations import build_transformation
from innerloop_trainer.data import EpisodeShape
from innerloop_trainer.data.class_split import shuffled
from innerloop_trainer.data.example_set import ExampleSet
from innerloop_trainer.evaluation import confidence_interval, evaluate
from innerloop_trainer.outer_loop import OptimizerPlan, OuterLoop, build_estimator
from innerloop_trainer.seeds import generator_for

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from data import Folders, Reader, between, intents
from intervals import half_width
from machine import describe_machine

ROOT = Path(__file__).resolve().parent.parent.parent
RUNS = ROOT / "runs" / "domains"
RESULTS = Path(__file__).with_name("results.json")
TASKS, EPISODES = 4, 600
"""Tasks of an outer step, and episodes that each run is measured on."""
SEEDS = 5


class Network(NamedTuple):
    """A backbone.

    Attributes:
        name: registered name.
        settings: its settings.
    """

    name: str
    settings: Mapping[str, Any] = MappingProxyType({})


class Side(NamedTuple):
    """A way to train.

    Attributes:
        estimator: registered name.
        settings: settings of the estimator besides the usual ones.
        transformed: whether features are transformed at random.
        steps: outer steps, in those of the case.
        network: network in place of that of the case.
    """

    estimator: str
    settings: Mapping[str, float] = MappingProxyType({})
    transformed: bool = False
    steps: float = 1.0
    network: Network | None = None


CONV4 = Network("conv4", {"width": 32, "downsample": "stride", "norm": "group"})
SIDES = {
    "pooled": Side("backpropagation"),
    "longer": Side("backpropagation", steps=2.3),
    "mldg": Side("mldg"),
    "fixed": Side("backpropagation", transformed=True),
    "learned": Side("mldg", {"held_out_weight": 0.0}, transformed=True),
    # The adapter begins as the identity.
    "features": Side("backpropagation", steps=0.0, network=Network("adapter")),
}
TRAINED = ("pooled", "longer", "mldg", "fixed", "learned")


@dataclass(frozen=True)
class Case:
    """Data, tasks, and how many to train on.

    Attributes:
        read: reads the data, for a seed.
        training: shape of the episodes of training.
        measured: shape of the episodes of test.
        network: what embeds examples.
        learning_rate: outer learning rate.
        iterations: outer steps.
        sides: names of what is compared.
        control: whether `mldg` and `pooled` are trained on random domains, too.
    """

    read: Reader
    training: EpisodeShape
    measured: EpisodeShape
    network: Network = CONV4
    learning_rate: float = 0.003
    iterations: int = 200
    sides: Sequence[str] = TRAINED
    control: bool = True


ALPHABETS = "omniglot:{omniglot}?split=alphabet&rotations=false&domains=alphabet"
FONTS, ROTATIONS = "glyphs?domains=font", "digits?domains=rotation"
CHARACTERS = (EpisodeShape(10, 1, 2), EpisodeShape(20, 1, 1))
CASES = {
    "alphabets": Case(between(ALPHABETS, ALPHABETS), *CHARACTERS),
    "fonts": Case(between(FONTS, ALPHABETS), *CHARACTERS, control=False),
    "digits": Case(between(ROTATIONS, ROTATIONS), EpisodeShape(6, 1, 2), EpisodeShape(2, 1, 10)),
    "intents": Case(
        intents,
        EpisodeShape(7, 1, 2),
        EpisodeShape(7, 1, 3),
        network=Network("mlp", {"widths": (384, 384), "norm": "layer"}),
        learning_rate=0.0003,
        sides=(*TRAINED, "features"),
    ),
}


class Run(NamedTuple):
    """One training.

    Attributes:
        case: name of the case.
        side: what trains, as in SIDES.
        seed: of initial parameters and episodes.
        random: whether classes get domains at random.
    """

    case: str
    side: str
    seed: int
    random: bool = False


Outcome = dict[str, Any]
"""What a run led to: "accuracies" of single episodes, seconds "training_s", "loss", and "strengths" by norm."""


def main() -> None:
    """Train, measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("omniglot", type=Path, help="folder with images_background.zip and images_evaluation.zip")
    parser.add_argument("--banking77", type=Path, help="folder with train.csv and test.csv; no intents without")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    arguments = parser.parse_args()
    folders = Folders(arguments.omniglot, arguments.banking77)
    RUNS.mkdir(parents=True, exist_ok=True)
    results = json.loads(RESULTS.read_text())["results"] if RESULTS.is_file() else {}
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as pool:

        def made(runs: Sequence[Run]) -> list[Outcome]:
            return list(pool.map(_kept, [folders] * len(runs), runs))

        for name in arguments.cases:
            if name == "intents" and folders.banking77 is None:
                print("skipped: name --banking77 DIR to measure intents", flush=True)
                continue
            results[name] = _measured(name, made)
            print(name, json.dumps(results[name], indent=2), flush=True)
            content = {"machine": describe_machine(), "episodes": EPISODES, "results": results}
            RESULTS.write_text(json.dumps(content, indent=2) + "\n")


def _measured(name: str, made: Callable[[Sequence[Run]], list[Outcome]]) -> dict[str, Any]:
    """All sides and controls of a case."""
    case = CASES[name]
    plain = {side: made([Run(name, side, seed) for seed in range(SEEDS)]) for side in case.sides}
    measured: dict[str, Any] = {
        "test": {side: {**_over(runs, plain["pooled"]), **_costs(runs)} for side, runs in plain.items()}
    }
    if case.control:
        sides = ("pooled", "mldg")
        random = {side: made([Run(name, side, seed, random=True) for seed in range(SEEDS)]) for side in sides}
        gains = [_accuracies(runs["mldg"]) - _accuracies(runs["pooled"]) for runs in (plain, random)]
        measured["control"] = {side: _over(runs, random["pooled"]) for side, runs in random.items()}
        measured["gain_by_true_domains"] = _summary(gains[0] - gains[1])
    return measured


def _over(runs: Sequence[Outcome], pooled: Sequence[Outcome]) -> dict[str, Any]:
    """Accuracy, and how much it is above that of pooled training, unless it is that one's."""
    figures = {"accuracy": _summary(_accuracies(runs))}
    if runs is not pooled:
        figures["over_pooled"] = _summary(_accuracies(runs) - _accuracies(pooled))
    return figures


def _accuracies(runs: Sequence[Outcome]) -> Tensor:
    """Accuracies [seeds, episodes]."""
    return torch.tensor([run["accuracies"] for run in runs], dtype=torch.float64)


def _costs(runs: Sequence[Outcome]) -> dict[str, Any]:
    """Seconds of training, loss, and mean strengths by norm, averaged over seeds."""
    return {
        "training_s": round(mean(run["training_s"] for run in runs), 1),
        "loss": [run["loss"] and round(run["loss"], 3) for run in runs],
        "strengths": {name: round(mean(run["strengths"][name] for run in runs), 3) for name in runs[0]["strengths"]},
    }


def _summary(values: Tensor) -> dict[str, Any]:
    """Mean of values [seeds, episodes], half widths of its 95% confidence intervals, and the means of seeds.

    The interval over episodes is that for these seeds; the one over seeds is what other seeds would give.
    """
    of_seeds = values.mean(1)
    return {
        "mean": round(values.mean().item(), 5),
        "confidence_interval": round(confidence_interval(values.mean(0)), 5),
        "over_seeds": round(half_width(of_seeds.tolist()), 5),
        "of_seeds": [round(each, 5) for each in of_seeds.tolist()],
    }


def _kept(folders: Folders, run: Run) -> Outcome:
    """What a run led to, made now or before."""
    told = "-random" if run.random else ""
    file = RUNS / f"{run.case}-{run.side}-{run.seed}{told}.json"
    if not file.is_file():
        file.write_text(json.dumps(_trained(folders, run)))
    kept: Outcome = json.loads(file.read_text())
    return kept


def _trained(folders: Folders, run: Run) -> Outcome:
    """Train, and measure on domains that were never trained on."""
    torch.set_num_threads(1)
    keep_freed_memory()
    case, side = CASES[run.case], SIDES[run.side]
    iterations = round(side.steps * case.iterations)
    train, test, spec = case.read(folders, run.seed)
    if run.random:
        train = train.with_inputs(_with_random_domains, spec)
    network, settings = side.network or case.network
    learner = build_learner(LearnerSpec("protonet", spec, max_ways=64, backbone=network, backbone_settings=settings))
    objective = build_objective(learner)
    if side.transformed:
        objective = Transformed(objective, build_transformation("feature_wise", learner, {}))
    generator = generator_for(run.seed, "initialisation")
    start = {**learner.init(generator), **objective.init(generator)}
    plan = OptimizerPlan(iterations, case.learning_rate, gradient_clip=10.0)
    loop = OuterLoop(build_estimator(side.estimator, objective, side.settings), start, plan, run.seed)
    losses, began = [], time.process_time()
    for iteration in range(iterations):
        drawn = train.sample(case.training, TASKS, generator_for(run.seed, "training", iteration))
        losses.append(loop.step(drawn, iteration).loss.item())
    seconds = time.process_time() - began
    served = accelerated(learner, "cpu")
    measured = evaluate(served, loop.params, test, case.measured, split="test", episodes=EPISODES)
    return {
        "training_s": seconds,
        "loss": mean(losses[-iterations // 10 :]) if losses else None,
        "accuracies": measured.values.tolist(),
        "strengths": {each: F.softplus(loop.params[each]).mean().item() for each in sorted(objective.strengths())},
    }


def _with_random_domains(data: ExampleSet) -> ExampleSet:
    """The same classes in domains of the same sizes, which classes are shuffled into."""
    domains = dict(zip(shuffled(data.names, 0), sorted(data.domains or ()), strict=True))
    return replace(data, domains=tuple(domains[name] for name in data.names))


if __name__ == "__main__":
    main()
