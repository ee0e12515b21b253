"""Augmented copies of support examples on Omniglot: with learned strengths, with fixed ones, and without copies.

    python benchmarks/support_policy/run.py OMNIGLOT [--settings protonet maml] [--jobs 1]

Every run trains strided Conv4-32 on equally many tasks, at the same outer rate, with no choice by validation, and is
measured on 600 episodes of unseen characters (random split, inductive), the same for all. `none, as long` takes as many
outer steps more as make up for the processor time of `learned`; `augmented training` has no copies, but augments all
training images (`--augment`). `learned, switched off` is the run `learned`, measured without copies, and `learned, for
norms only` with copies that count 0, so that only statistics of norms see them. Controls: copies of strengths that
destroy drawings, fixed, and as the start of learned ones. Gains are those of one episode after the
other, averaged over seeds. Finished runs are kept in runs/support_policy/ and not made again. Seconds are those of one
thread's processor time, since runs share the processors; milliseconds of adapting are measured by turns with the same
learner without copies. Writes results.json.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor

from innerloop_learner import InputSpec, LearnerSpec, build_learner
from innerloop_learner.acceleration import accelerated
from innerloop_learner.host_memory import keep_freed_memory
from innerloop_learner.objectives import build_objective
from innerloop_learner.support_policies.learned import COUNT
from innerloop_learner.tasks import Params
from innerloop_trainer.data import (
    AugmentedTasks,
    DataSource,
    EpisodeShape,
    TaskSampler,
    load_source,
    read_augmentations,
)
from innerloop_trainer.evaluation import confidence_interval, evaluate
from innerloop_trainer.outer_loop import OptimizerPlan, OuterLoop, build_estimator
from innerloop_trainer.seeds import generator_for

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine

ROOT = Path(__file__).resolve().parent.parent.parent
RUNS = ROOT / "runs" / "support_policy"
RESULTS = Path(__file__).with_name("results.json")
SEEDS = (0, 1)
EPISODES, ADAPTATIONS = 600, 25
LEARNING_RATE, WIDTH, COPIES = 0.003, 32, 3
FIVE, TWENTY = EpisodeShape(5, 1, 3), EpisodeShape(20, 1, 1)
COPIED = "affine,elastic,stroke,colour,erasing"
HARMFUL = (
    "affine?rotation=90&scale=0.7&shear=0.9,elastic?distance=0.1,stroke?width=0.9,colour?brightness=2&contrast=1.5,"
    "erasing?probability=0.9&area=0.6"
)


@dataclass(frozen=True)
class Arm:
    """What is compared.

    Attributes:
        policy: registered name of the support policy of training.
        augment: augmentations of the policy.
        training: augmentations of training images.
        as_long: whether to train for the time that `learned` takes.
        run: the arm whose run is measured, if that is another one.
        served: registered name of the support policy that is measured, if that is another one.
        uncounted: whether copies are measured with a count of 0, so that only statistics of norms see them.
    """

    policy: str = "none"
    augment: str = ""
    training: str = "none"
    as_long: bool = False
    run: str = ""
    served: str = ""
    uncounted: bool = False


ARMS = {
    "none": Arm(),
    "augmented training": Arm(training="affine,elastic,stroke"),
    "fixed": Arm("fixed", COPIED),
    "learned": Arm("learned", COPIED),
    "learned, switched off": Arm("learned", COPIED, run="learned", served="none"),
    "learned, for norms only": Arm("learned", COPIED, run="learned", uncounted=True),
    "none, as long": Arm(as_long=True),
    "harmful": Arm("fixed", HARMFUL),
    "learned from harmful": Arm("learned", HARMFUL),
}


BASELINES = {"over_none": "none", "over_fixed": "fixed", "over_as_long": "none, as long"}
"""The arms over which gains are counted."""


@dataclass(frozen=True)
class Setting:
    """A method, its tasks, and how many to train on.

    Attributes:
        method: registered name.
        training: shape of the episodes of training.
        measured: shapes of the episodes that are measured, by name.
        iterations: outer steps.
        meta_batch: tasks per outer step.
        settings: settings of the method.
        arms: names of what is compared.
    """

    method: str
    training: EpisodeShape
    measured: Mapping[str, EpisodeShape]
    iterations: int
    meta_batch: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    arms: Sequence[str] = tuple(ARMS)


SETTINGS = {
    "protonet": Setting("protonet", EpisodeShape(20, 1, 3), {"5w1s": FIVE, "20w1s": TWENTY}, 400, 1),
    "maml": Setting(
        "maml",
        EpisodeShape(5, 1, 3),
        {"5w1s": FIVE},
        120,
        4,
        {"steps": 3, "rate": 0.2},
        ("none", "augmented training", "fixed", "learned", "learned, switched off", "none, as long"),
    ),
}


def main() -> None:
    """Train, measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("omniglot", type=Path, help="folder with images_background.zip and images_evaluation.zip")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    arguments = parser.parse_args()
    RUNS.mkdir(parents=True, exist_ok=True)
    results = json.loads(RESULTS.read_text())["results"] if RESULTS.is_file() else {}
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as pool:
        for name in arguments.settings:
            # Others ask for these: how long they took, and their parameters.
            first = [(arm, seed) for arm in ("none", "learned") for seed in SEEDS]
            rest = [(arm, seed) for arm in SETTINGS[name].arms for seed in SEEDS if (arm, seed) not in first]
            measured = {}
            for group in (first, rest):
                futures = {each: pool.submit(_kept, arguments.omniglot, name, *each) for each in group}
                measured |= {each: future.result() for each, future in futures.items()}
            results[name] = {shape: _figures(shape, SETTINGS[name].arms, measured) for shape in SETTINGS[name].measured}
            results[name]["runs"] = {arm: _of_runs(arm, measured) for arm in SETTINGS[name].arms}
            print(name, json.dumps(results[name], indent=2), flush=True)
            content = {"machine": describe_machine(), "episodes": EPISODES, "seeds": len(SEEDS), "results": results}
            RESULTS.write_text(json.dumps(content, indent=2) + "\n")


def _kept(omniglot: Path, name: str, arm: str, seed: int) -> dict[str, Any]:
    """What a run gave, made now or before."""
    file = _file(name, arm, seed)
    if not file.is_file():
        outcome = _run(_source(omniglot), name, arm, seed)
        file.write_text(json.dumps(outcome))
    return json.loads(file.read_text())


@cache
def _source(omniglot: Path) -> DataSource:
    return load_source(f"omniglot:{omniglot}")


def _file(name: str, arm: str, seed: int, suffix: str = "json") -> Path:
    return RUNS / f"{name}-{arm.replace(', ', '-').replace(' ', '-')}-{seed}.{suffix}"


def _run(source: DataSource, name: str, arm: str, seed: int) -> dict[str, Any]:
    """Train, and measure the accuracies of single episodes, and processor times."""
    torch.set_num_threads(1)
    keep_freed_memory()
    setting, what = SETTINGS[name], ARMS[arm]
    spec = _spec(setting, source.input, what)
    params, seconds, iterations = _trained(source.train, name, arm, spec, seed)
    if what.uncounted:
        params = {**params, COUNT: torch.tensor(-torch.inf)}
    learner = build_learner(spec)
    if what.served:
        learner = build_learner(_with_policy(spec, what.served, what.augment))
    served = accelerated(learner, "cpu")
    measure = partial(evaluate, served, params, split="test", episodes=EPISODES)
    outcome = {shape: measure(source.test, shape=of).values.tolist() for shape, of in setting.measured.items()}
    plain = accelerated(build_learner(_with_policy(spec, "none", "")), "cpu")
    times = {shape: _adapt_ms((plain, served), params, source.test, of) for shape, of in setting.measured.items()}
    policy = learner.support_policy
    strengths = {
        f"{part} {strength}": float(value)
        for part, own in policy.strengths(params).items()
        for strength, value in own.items()
    }
    figures = {"training_s": seconds, "iterations": iterations, "adapt_ms": times}
    return {**figures, "unseen": outcome, "count": float(policy.count(params)), "strengths": strengths}


def _trained(train: TaskSampler, name: str, arm: str, spec: LearnerSpec, seed: int) -> tuple[Params, float, int]:
    """Parameters, seconds of processor time that they took, and outer steps."""
    setting, what = SETTINGS[name], ARMS[arm]
    file = _file(name, what.run or arm, seed, "pt")
    if what.run:
        kept = torch.load(file)
        return kept["params"], kept["seconds"], kept["iterations"]
    iterations = setting.iterations
    if what.as_long:
        plain, learned = (json.loads(_file(name, each, seed).read_text())["training_s"] for each in ("none", "learned"))
        iterations = math.ceil(iterations * learned / plain)
    if what.training != "none":
        train = AugmentedTasks(train, read_augmentations(what.training))
    learner = accelerated(build_learner(spec), "cpu")
    estimator = build_estimator("backpropagation", build_objective(learner), {})
    plan = OptimizerPlan(iterations, LEARNING_RATE, gradient_clip=10.0)
    loop = OuterLoop(estimator, learner.init(generator_for(seed, "initialisation")), plan, seed)
    began = time.process_time()
    for iteration in range(iterations):
        episodes = train.sample(setting.training, setting.meta_batch, generator_for(seed, "training", iteration))
        loop.step(episodes, iteration)
    trained = {"params": loop.params, "seconds": time.process_time() - began, "iterations": iterations}
    torch.save(trained, file)
    return loop.params, trained["seconds"], iterations


def _spec(setting: Setting, inputs: InputSpec, arm: Arm) -> LearnerSpec:
    spec = LearnerSpec(
        setting.method,
        inputs,
        max_ways=setting.training.ways,
        backbone_settings={"width": WIDTH, "downsample": "stride"},
        settings=setting.settings,
    )
    return _with_policy(spec, arm.policy, arm.augment)


def _with_policy(spec: LearnerSpec, policy: str, augment: str) -> LearnerSpec:
    settings = {} if policy == "none" else {"copies": COPIES, "augment": augment}
    return replace(spec, support_policy=policy, policy_settings=settings)


def _adapt_ms(learners: Any, params: Params, tasks: TaskSampler, shape: EpisodeShape) -> list[float]:
    """Milliseconds of processor time that each learner takes to adapt to one task, by turns, the median of some."""
    support = tasks.sample(shape, 1, generator_for(0, "support_policy")).support
    times: list[list[float]] = [[] for _ in learners]
    with torch.no_grad():
        for _ in range(ADAPTATIONS):
            for learner, own in zip(learners, times, strict=True):
                began = time.process_time()
                learner.adapt(params, support)
                own.append(1000 * (time.process_time() - began))
    return [median(own) for own in times]


def _figures(shape: str, arms: Sequence[str], measured: Mapping[tuple[str, int], Mapping[str, Any]]) -> dict[str, Any]:
    """Accuracies of each arm on tasks of a shape, and gains over other arms, over seeds."""
    values = {arm: _values([measured[arm, seed]["unseen"][shape] for seed in SEEDS]) for arm in arms}
    baselines = {name: values[arm] for name, arm in BASELINES.items() if arm in values}
    return {
        arm: {
            "accuracy": _summary(own.mean(0)),
            **{name: _summary((own - other).mean(0)) for name, other in baselines.items()},
            "over_none_by_seed": [_summary(each) for each in own - values["none"]],
            "adapt_ms": [median(measured[arm, seed]["adapt_ms"][shape][which] for seed in SEEDS) for which in (0, 1)],
        }
        for arm, own in values.items()
    }


def _of_runs(arm: str, measured: Mapping[tuple[str, int], Mapping[str, Any]]) -> dict[str, Any]:
    """What the runs of an arm took, and the policies that they ended with."""
    runs = [measured[arm, seed] for seed in SEEDS]
    return {
        "training_s": mean(run["training_s"] for run in runs),
        "iterations": [run["iterations"] for run in runs],
        "count": [run["count"] for run in runs],
        "strengths": {name: [run["strengths"][name] for run in runs] for name in runs[0]["strengths"]},
    }


def _values(runs: list[list[float]]) -> Tensor:
    """Accuracies [seeds, episodes]."""
    return torch.tensor(runs, dtype=torch.float64)


def _summary(values: Tensor) -> dict[str, float]:
    """Mean and half width of its 95% confidence interval."""
    return {"mean": values.mean().item(), "confidence_interval": confidence_interval(values)}


if __name__ == "__main__":
    main()
