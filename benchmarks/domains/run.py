"""Domains that were never trained on: MLDG and feature-wise transformations beside pooled training.

    python benchmarks/domains/run.py PATH_OF_OMNIGLOT [--cases alphabets fonts digits] [--jobs 1]

All sides train ProtoNet on strided Conv4-32 with the same number of outer steps on the same episodes, each of one
domain. `pooled` averages over them, `mldg` holds domains out, `fixed` transforms features at random, and `learned` has
the held-out domains teach how much. Each is trained with several settings for the first seed, of which the one that is
best on validation domains is taken for all seeds; `pooled` has its outer rate chosen so, which the others take over.
Then each is measured on 600 episodes of domains that were never trained on, of unseen classes, the same for all sides;
gains are those of one episode after the other. As a control, classes get domains at random, and `mldg` and `learned`
are compared with `pooled` on such episodes. Seconds are those of one thread's processor time. Finished runs are kept in
runs/domains/ and not made again. Writes results.json.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
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
SEEDS = (0, 1, 2)
EPISODES, VALIDATION_EPISODES = 600, 300
SIDES = ("pooled", "mldg", "fixed", "learned")
CONTROLS = ("mldg", "learned")
Settings = Mapping[str, float]
CANDIDATES: Mapping[str, Sequence[Settings]] = {
    "pooled": [{"learning_rate": rate} for rate in (0.003, 0.01)],
    "mldg": [{"look_ahead": rate} for rate in (0.01, 0.1, 1.0)],
    "fixed": [{"scale_deviation": 0.3 * part, "shift_deviation": 0.5 * part} for part in (1.0, 0.2)],
    "learned": [{"look_ahead": rate} for rate in (0.1, 1.0)],
}
"""Settings of which validation domains choose; the first of `fixed` is that of the paper, where `learned` begins."""


@dataclass(frozen=True)
class Case:
    """Data, tasks, and how many to train on.

    Attributes:
        train: source of training and validation episodes; {omniglot} stands for the path.
        test: source whose test split is measured.
        training: shape of the episodes of training.
        measured: shape of the episodes of validation and test.
        iterations: outer steps.
        meta_batch: tasks per outer step.
    """

    train: str
    test: str
    training: EpisodeShape
    measured: EpisodeShape
    iterations: int
    meta_batch: int


ALPHABETS = "omniglot:{omniglot}?split=alphabet&rotations=false&domains=alphabet"
CASES = {
    "alphabets": Case(ALPHABETS, ALPHABETS, EpisodeShape(10, 1, 2), EpisodeShape(20, 1, 1), 300, 4),
    "fonts": Case("glyphs?domains=font", ALPHABETS, EpisodeShape(10, 1, 2), EpisodeShape(20, 1, 1), 300, 4),
    "digits": Case(*["digits?domains=rotation"] * 2, EpisodeShape(2, 1, 8), EpisodeShape(2, 1, 15), 200, 4),
}


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        case: name of the case.
        side: what trains, as in SIDES.
        settings: its settings.
        seed: of initial parameters and episodes.
        random: whether classes get domains at random.
    """

    case: str
    side: str
    settings: Settings
    seed: int
    random: bool = False


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

        def made(runs: Sequence[Run]) -> list[dict[str, Any]]:
            return list(pool.map(_kept, [arguments.omniglot] * len(runs), runs))

        for name in arguments.cases:
            results[name] = _measured(name, made)
            print(name, json.dumps(results[name], indent=2), flush=True)
    content = {"machine": describe_machine(), "episodes": EPISODES, "seeds": len(SEEDS), "results": results}
    RESULTS.write_text(json.dumps(content, indent=2) + "\n")


def _measured(case: str, made: Any) -> dict[str, Any]:
    """Choose settings by validation, and measure all sides and controls of a case."""
    chosen: dict[str, Settings] = {}
    tried: dict[str, Any] = {}
    for side in SIDES:
        inherited = chosen.get("pooled", {})
        runs = [Run(case, side, {**inherited, **each}, SEEDS[0]) for each in CANDIDATES[side]]
        validated = [_mean(found["validation"]) for found in made(runs)]
        chosen[side] = runs[validated.index(max(validated))].settings
        tried[side] = [{**run.settings, "validation": value} for run, value in zip(runs, validated, strict=True)]
    values, seconds, strengths = {}, {}, {}
    for side, random in [(side, False) for side in SIDES] + [(side, True) for side in ("pooled", *CONTROLS)]:
        found = made([Run(case, side, chosen[side], seed, random) for seed in SEEDS])
        values[side, random] = torch.tensor([each["test"] for each in found], dtype=torch.float64)
        seconds[side, random] = sum(each["training_s"] for each in found) / len(found)
        strengths[side] = found[0]["strengths"]
    return {
        "chosen": chosen,
        "tried": tried,
        "test": {
            side: {
                **_over(values[side, False], values["pooled", False]),
                "training_s": seconds[side, False],
                "strengths": strengths[side],
            }
            for side in SIDES
        },
        "control": {side: _over(values[side, True], values["pooled", True]) for side in ("pooled", *CONTROLS)},
    }


def _over(values: Tensor, pooled: Tensor) -> dict[str, Any]:
    """Accuracy [seeds, episodes] averaged over seeds, and how much it is above that of pooled training."""
    gains = values - pooled
    return {
        "accuracy": _summary(values.mean(0)),
        "over_pooled": _summary(gains.mean(0)),
        "over_pooled_by_seed": [_summary(own) for own in gains],
    }


def _summary(values: Tensor) -> dict[str, float]:
    """Mean over episodes and half width of its 95% confidence interval."""
    return {"mean": values.mean().item(), "confidence_interval": confidence_interval(values)}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _kept(omniglot: Path, run: Run) -> dict[str, Any]:
    """What a run gave, made now or before."""
    told = hashlib.sha256(json.dumps([asdict(run), asdict(CASES[run.case])], sort_keys=True).encode()).hexdigest()
    file = RUNS / f"{run.case}-{run.side}-{run.seed}-{told[:12]}.json"
    if not file.is_file():
        file.write_text(json.dumps(_trained(omniglot, run)))
    return json.loads(file.read_text())


def _trained(omniglot: Path, run: Run) -> dict[str, Any]:
    """Train, and measure the accuracies of single episodes."""
    torch.set_num_threads(1)
    keep_freed_memory()
    case = CASES[run.case]
    source, test = (_source(text.format(omniglot=omniglot)) for text in (case.train, case.test))
    train = _with_random_domains(source.train, source.input) if run.random else source.train
    rate = run.settings["learning_rate"]
    own = {name: value for name, value in run.settings.items() if name != "learning_rate"}
    backbone = {"width": 32, "downsample": "stride", "norm": "batch"}
    learner = build_learner(LearnerSpec("protonet", source.input, max_ways=64, backbone_settings=backbone))
    objective = build_objective(learner)
    if run.side in ("fixed", "learned"):
        transformation = build_transformation("feature_wise", learner, own if run.side == "fixed" else {})
        objective = Transformed(objective, transformation)
    held_out = {"mldg": own, "learned": {**own, "held_out_weight": 0.0}}
    name = "mldg" if run.side in held_out else "backpropagation"
    estimator = build_estimator(name, objective, held_out.get(run.side, {}))
    generator = generator_for(run.seed, "initialisation")
    start = {**learner.init(generator), **objective.init(generator)}
    loop = OuterLoop(estimator, start, OptimizerPlan(case.iterations, rate, gradient_clip=10.0), run.seed)
    began = time.process_time()
    for iteration in range(case.iterations):
        drawn = train.sample(case.training, case.meta_batch, generator_for(run.seed, "training", iteration))
        loop.step(drawn, iteration)
    seconds, served = time.process_time() - began, accelerated(learner, "cpu")

    def accuracies(split: TaskSampler, name: str, episodes: int) -> list[float]:
        found = evaluate(served, loop.params, split, case.measured, split=name, episodes=episodes)
        values: list[float] = found.values.tolist()
        return values

    return {
        "training_s": seconds,
        "validation": accuracies(source.validation, "validation", VALIDATION_EPISODES),
        "test": accuracies(test.test, "test", EPISODES),
        "strengths": {
            each: torch.nn.functional.softplus(loop.params[each]).mean().item()
            for each in sorted(objective.strengths())
        },
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
