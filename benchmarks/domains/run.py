"""Domains that were never trained on: MLDG and feature-wise transformations beside pooled training.

    python benchmarks/domains/run.py PATH_OF_OMNIGLOT [--cases alphabets fonts] [--jobs 1]

All sides train ProtoNet on strided Conv4-32 with group norm, at the same outer rate, on the same episodes, each of one
domain. `pooled` averages over domains; `longer` does the same in 2.3 times as many steps, about the time of `mldg`;
`mldg` holds domains out; `fixed` transforms features at random; and `learned` has the held-out domains teach how much.
All else is as usual, and nothing was tuned. Each is measured on 600 episodes of unseen classes of domains that were
never trained on, the same for all sides; gains are those of one episode after the other. As a control, classes get
domains at random, and `mldg` is compared with `pooled` on such episodes. Seconds are those of one thread's processor
time. Finished runs are kept in runs/domains/ and not made again. Writes results.json.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner import InputSpec, LearnerSpec, build_learner
from innerloop_learner.acceleration import accelerated
from innerloop_learner.host_memory import keep_freed_memory
from innerloop_learner.objectives import build_objective
from innerloop_learner.objectives.transformed import Transformed
from innerloop_learner.transformations import build_transformation
from innerloop_trainer.data import ClassExamples, DataSource, EpisodeShape, TaskSampler, load_source
from innerloop_trainer.data.class_split import shuffled
from innerloop_trainer.data.example_set import ExampleSet
from innerloop_trainer.evaluation import confidence_interval, evaluate
from innerloop_trainer.outer_loop import OptimizerPlan, OuterLoop, build_estimator
from innerloop_trainer.seeds import generator_for

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine

ROOT = Path(__file__).resolve().parent.parent.parent
RUNS = ROOT / "runs" / "domains"
RESULTS = Path(__file__).with_name("results.json")
EPISODES, LEARNING_RATE = 600, 0.003


class Side(NamedTuple):
    """A way to train.

    Attributes:
        estimator: registered name.
        settings: settings of the estimator besides the usual ones.
        transformed: whether features are transformed at random.
        steps: outer steps, in those of the case.
    """

    estimator: str
    settings: Mapping[str, float] = MappingProxyType({})
    transformed: bool = False
    steps: float = 1.0


SIDES = {
    "pooled": Side("backpropagation"),
    "longer": Side("backpropagation", steps=2.3),
    "mldg": Side("mldg"),
    "fixed": Side("backpropagation", transformed=True),
    "learned": Side("mldg", {"held_out_weight": 0.0}, transformed=True),
}


@dataclass(frozen=True)
class Case:
    """Data, tasks, and how many to train on.

    Attributes:
        train: source of training episodes; {omniglot} stands for the path.
        test: source whose test split is measured.
        training: shape of the episodes of training.
        measured: shape of the episodes of test.
        iterations: outer steps.
        meta_batch: tasks per outer step.
        seeds: number of seeds.
        control: whether `mldg` and `pooled` are trained on random domains, too.
    """

    train: str
    test: str
    training: EpisodeShape
    measured: EpisodeShape
    iterations: int
    meta_batch: int
    seeds: int = 2
    control: bool = True


ALPHABETS = "omniglot:{omniglot}?split=alphabet&rotations=false&domains=alphabet"
TRAINING, MEASURED = EpisodeShape(10, 1, 2), EpisodeShape(20, 1, 1)
CASES = {
    "alphabets": Case(ALPHABETS, ALPHABETS, TRAINING, MEASURED, 200, 4),
    "fonts": Case("glyphs?domains=font", ALPHABETS, TRAINING, MEASURED, 200, 4, control=False),
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
"""What a run led to: "accuracies" of single episodes, seconds "training_s", and "strengths" by norm."""


def main() -> None:
    """Train, measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("omniglot", type=Path, help="folder with images_background.zip and images_evaluation.zip")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    arguments = parser.parse_args()
    RUNS.mkdir(parents=True, exist_ok=True)
    results = json.loads(RESULTS.read_text())["results"] if RESULTS.is_file() else {}
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as pool:

        def made(runs: Sequence[Run]) -> list[Outcome]:
            return list(pool.map(_kept, [arguments.omniglot] * len(runs), runs))

        for name in arguments.cases:
            results[name] = _measured(name, made)
            print(name, json.dumps(results[name], indent=2), flush=True)
            content = {"machine": describe_machine(), "episodes": EPISODES, "results": results}
            RESULTS.write_text(json.dumps(content, indent=2) + "\n")


def _measured(case: str, made: Any) -> dict[str, Any]:
    """All sides and controls of a case."""
    seeds = range(CASES[case].seeds)
    plain = {side: made([Run(case, side, seed) for seed in seeds]) for side in SIDES}
    sides = ("pooled", "mldg") if CASES[case].control else ()
    random = {side: made([Run(case, side, seed, random=True) for seed in seeds]) for side in sides}
    return {
        "test": {side: {**_over(plain[side], plain["pooled"]), **_costs(plain[side])} for side in plain},
        "control": {side: _over(random[side], random["pooled"]) for side in random},
    }


def _over(runs: Sequence[Outcome], pooled: Sequence[Outcome]) -> dict[str, Any]:
    """Accuracy averaged over seeds, and how much it is above that of pooled training."""
    values, others = (
        torch.tensor([run["accuracies"] for run in each], dtype=torch.float64) for each in (runs, pooled)
    )  # [seeds, episodes]
    gains = values - others
    return {
        "accuracy": _summary(values.mean(0)),
        "over_pooled": _summary(gains.mean(0)),
        "over_pooled_by_seed": [_summary(own) for own in gains],
    }


def _costs(runs: Sequence[Outcome]) -> dict[str, Any]:
    """Seconds of training, and mean strengths by norm, averaged over seeds."""
    return {
        "training_s": mean(run["training_s"] for run in runs),
        "strengths": {name: mean(run["strengths"][name] for run in runs) for name in runs[0]["strengths"]},
    }


def _summary(values: Tensor) -> dict[str, float]:
    """Mean over episodes and half width of its 95% confidence interval."""
    return {"mean": values.mean().item(), "confidence_interval": confidence_interval(values)}


def _kept(omniglot: Path, run: Run) -> Outcome:
    """What a run led to, made now or before."""
    told = "-random" if run.random else ""
    file = RUNS / f"{run.case}-{run.side}-{run.seed}{told}.json"
    if not file.is_file():
        file.write_text(json.dumps(_trained(omniglot, run)))
    kept: Outcome = json.loads(file.read_text())
    return kept


def _trained(omniglot: Path, run: Run) -> Outcome:
    """Train, and measure on domains that were never trained on."""
    torch.set_num_threads(1)
    keep_freed_memory()
    case, side = CASES[run.case], SIDES[run.side]
    iterations = round(side.steps * case.iterations)
    source, test = (_source(text.format(omniglot=omniglot)) for text in (case.train, case.test))
    train = _with_random_domains(source.train, source.input) if run.random else source.train
    backbone = {"width": 32, "downsample": "stride", "norm": "group"}
    learner = build_learner(LearnerSpec("protonet", source.input, max_ways=64, backbone_settings=backbone))
    objective = build_objective(learner)
    if side.transformed:
        objective = Transformed(objective, build_transformation("feature_wise", learner, {}))
    generator = generator_for(run.seed, "initialisation")
    start = {**learner.init(generator), **objective.init(generator)}
    plan = OptimizerPlan(iterations, LEARNING_RATE, gradient_clip=10.0)
    loop = OuterLoop(build_estimator(side.estimator, objective, side.settings), start, plan, run.seed)
    began = time.process_time()
    for iteration in range(iterations):
        drawn = train.sample(case.training, case.meta_batch, generator_for(run.seed, "training", iteration))
        loop.step(drawn, iteration)
    seconds = time.process_time() - began
    served = accelerated(learner, "cpu")
    measured = evaluate(served, loop.params, test.test, case.measured, split="test", episodes=EPISODES)
    return {
        "training_s": seconds,
        "accuracies": measured.values.tolist(),
        "strengths": {each: F.softplus(loop.params[each]).mean().item() for each in sorted(objective.strengths())},
    }


@cache
def _source(text: str) -> DataSource:
    return load_source(text)


def _with_random_domains(split: TaskSampler, spec: InputSpec) -> ClassExamples:
    """The same classes in domains of the same sizes, which classes are shuffled into."""
    if not isinstance(split, ClassExamples):
        raise TypeError("only classes have domains")

    def change(data: ExampleSet) -> ExampleSet:
        domains = dict(zip(shuffled(data.names, 0), data.domains or (), strict=True))
        return replace(data, domains=tuple(domains[name] for name in data.names))

    return split.with_inputs(change, spec)


if __name__ == "__main__":
    main()
