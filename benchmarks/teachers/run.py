"""A student of a teacher on Omniglot: what a wide network adds to a small one, and what changing the teacher adds.

    python benchmarks/teachers/run.py OMNIGLOT [--seeds 5]

The student is `protonet` on strided Conv4-32, trained for 300 outer steps of one 20-way 1-shot task; teachers are the
same on Conv4-64, with 1,200 steps. Each side trains from the same initial parameters on the same tasks: alone; by a
teacher as it is (plain distillation); by one whose temperature, or whose head, learns to teach (MetaDistil); by three
teachers as they are. Two controls tell what the teacher says from what else the loss changes: the labels in the place
of the teacher's answers, at a temperature, too; and a wide network that was never trained.

Share and temperature are chosen by plain distillation, for labels by labels, and rates of what is learned of the
teacher by those that learn it, on validation characters with a seed of its own; the ensemble and the untrained teacher
have the settings of plain distillation. Where learning leads from other temperatures is asked on validation characters,
too. Accuracies are of 600 20-way 1-shot tasks of unseen characters, inductive, the same ones for all; gains are by
episode, averaged over seeds. Times are processor time of one thread. Runs are kept in runs/teachers/ and resumed.
Writes results.json.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from innerloop_learner import Episodes, Params
from innerloop_learner.bundle import load_bundle
from innerloop_learner.host_memory import keep_freed_memory
from innerloop_learner.losses import log_weights
from innerloop_trainer.config import TrainingConfig
from innerloop_trainer.data import DataSource, EpisodeShape, load_source
from innerloop_trainer.evaluation import confidence_interval, evaluate
from innerloop_trainer.outer_loop import OuterLoop
from innerloop_trainer.outer_loop.loop import PARAMETERS
from innerloop_trainer.plan import make_plan
from innerloop_trainer.runs.conduct import Conduct
from innerloop_trainer.runs.folder import RunFolder
from innerloop_trainer.runs.prepare import prepare
from innerloop_trainer.runs.teachers import read_teachers
from innerloop_trainer.seeds import generator_for
from innerloop_trainer.teaching import NO_TEACHERS, Teachers
from innerloop_trainer.teaching.distillation import TEACHER as TEACHER_PREFIX
from innerloop_trainer.teaching.temperature import LOG_TEMPERATURE

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine
from untrained import initial_params, write_bundle

RUNS = Path(__file__).resolve().parent.parent.parent / "runs" / "teachers"
RESULTS = Path(__file__).with_name("results.json")
CPU = torch.device("cpu")
EPISODES, TIMED_STEPS = 600, 30
SHAPE = EpisodeShape(20, 1, 3)
CHOOSING = 1000
"""Seed of the runs by which settings are chosen."""

STUDENT = TrainingConfig(
    "protonet",
    "omniglot",
    ways=20,
    train_ways=20,
    queries=2,
    meta_batch=1,
    iterations=300,
    learning_rate=0.002,
    validate_every=300,
    validation_episodes=100,
    backbone_settings={"width": 32, "downsample": "stride", "norm": "batch"},
)
TEACHER, UNTRAINED, LABELS = "teacher", "teacher-untrained", "labels"
OTHERS = {"teacher-101": 101, "teacher-102": 102}
"""Seeds of the other teachers of the ensemble, by name."""

WIDE = replace(
    STUDENT,
    seed=100,
    iterations=1200,
    validate_every=400,
    backbone_settings={"width": 64, "downsample": "stride", "norm": "batch"},
)
PLAIN = [{"teacher_share": share, "temperature": t} for share in (0.5, 0.9) for t in (1.0, 4.0, 16.0)]
CANDIDATES = {
    "plain": PLAIN,
    LABELS: PLAIN,
    "temperature": [{"teacher_rate": rate} for rate in (1.0, 10.0)],
    "head": [{"teacher_rate": rate} for rate in (1.0, 10.0, 100.0)],
}
"""Settings to choose from, by side; those of plain distillation go for all others, too, where they name none."""

STARTS = (1.0, 16.0)
"""Temperatures to learn from besides the chosen one, to see whether learning finds back to it."""


@dataclass(frozen=True)
class Side:
    """One way to train the student.

    Attributes:
        teachers: names of the runs or bundles that teach.
        teaching: what of it is learned.
    """

    teachers: Sequence[str] = ()
    teaching: str = "plain"


SIDES = {
    "alone": Side(),
    LABELS: Side([TEACHER]),
    "plain": Side([TEACHER]),
    "temperature": Side([TEACHER], "temperature"),
    "head": Side([TEACHER], "head"),
    "ensemble": Side([TEACHER, *OTHERS]),
    "untrained": Side([UNTRAINED]),
}


class Labels(Teachers):
    """A teacher who gives the labels."""

    def log_probabilities(self, heads: Params, episodes: Episodes, temperature: Tensor) -> Tensor:
        """See Teachers.log_probabilities."""
        del heads, temperature
        right = torch.nn.functional.one_hot(episodes.targets, episodes.support.max_ways)
        return log_weights(right.to(episodes.query.x.dtype))


def main() -> None:
    """Train, choose, measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("omniglot", help="folder with the original zips")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    source = load_source(f"omniglot:{arguments.omniglot}")
    for name, seed in {TEACHER: WIDE.seed, **OTHERS}.items():
        _train(name, replace(WIDE, seed=seed), source)
    wide = load_bundle(RunFolder(RUNS / TEACHER).bundle).learner.spec
    write_bundle(RUNS / UNTRAINED, wide, initial_params(wide))
    tried, chosen = _choose(source)
    seeds = range(arguments.seeds)
    runs = {side: [_of_seed(side, seed, chosen, source) for seed in seeds] for side in SIDES}
    accuracies = {side: torch.stack([_accuracies(name, source) for name in runs[side]]) for side in SIDES}
    results = {
        "tried": tried,
        "chosen": chosen,
        "teachers": {name: _summary(_accuracies(name, source)) for name in (TEACHER, *OTHERS, UNTRAINED)},
        "students": {side: _figures(side, accuracies, _seconds(side, chosen, source)) for side in SIDES},
        "learned temperatures": [_learned_temperature(name) for name in runs["temperature"]],
        "other starts": [_start(temperature, chosen, source) for temperature in STARTS],
    }
    content = {"machine": describe_machine(), "episodes": EPISODES, "seeds": len(seeds), "results": results}
    RESULTS.write_text(json.dumps(content, indent=2) + "\n")


def _train(name: str, config: TrainingConfig, source: DataSource, teachers: Teachers = NO_TEACHERS) -> None:
    """Train a run, or go on with it where it was interrupted; a finished one stays as it is."""
    folder = RunFolder(RUNS / name)
    training = prepare(
        config, folder, CPU, resume=folder.exists, source=source, teachers=teachers, conduct=Conduct(save_minutes=1)
    ).training
    if not training.finished:
        training.run(lambda _: None, lambda: False)
        print(f"{name}: {training.progress.best_value:.4f}, {training.progress.seconds:.0f} s", flush=True)


def _teachers(side: str) -> Teachers:
    teachers = read_teachers([RUNS / name for name in SIDES[side].teachers], CPU)
    return Labels(teachers.bundles) if side == LABELS else teachers


def _config(side: str, seed: int, settings: dict[str, float]) -> TrainingConfig:
    return replace(STUDENT, seed=seed, teaching=SIDES[side].teaching, settings=settings)


def _settings(side: str, chosen: dict[str, dict[str, float]]) -> dict[str, float]:
    return {**chosen["plain"], **chosen.get(side, {})} if SIDES[side].teachers else {}


def _choose(source: DataSource) -> tuple[list[dict[str, Any]], dict[str, dict[str, float]]]:
    """All settings that were tried with their accuracies on validation tasks, and the best of each side."""
    tried: list[dict[str, Any]] = []
    chosen: dict[str, dict[str, float]] = {"plain": {}}
    for side, candidates in CANDIDATES.items():
        accuracies = []
        for candidate in candidates:
            settings = {**chosen["plain"], **candidate}
            name = "-".join(["choosing", side, *map(str, settings.values())])
            _train(name, _config(side, CHOOSING, settings), source, _teachers(side))
            accuracies.append(RunFolder(RUNS / name).load_latest(CPU)[1].best_value or 0.0)
            tried.append({"side": side, **settings, "accuracy": accuracies[-1]})
        chosen[side] = candidates[accuracies.index(max(accuracies))]
    return tried, chosen


def _of_seed(side: str, seed: int, chosen: dict[str, dict[str, float]], source: DataSource) -> str:
    """Train one side with one seed; returns the name of its run."""
    settings = _settings(side, chosen)
    name = "-".join([side, *map(str, settings.values()), f"seed{seed}"])
    _train(name, _config(side, seed, settings), source, _teachers(side))
    return name


def _accuracies(name: str, source: DataSource) -> Tensor:
    """The accuracies of a run or bundle in the episodes [E], measured now or before."""
    file = RUNS / name / "accuracies.safetensors"
    if not file.is_file():
        folder = RunFolder(RUNS / name)
        bundle = load_bundle(folder.bundle if folder.exists else folder.path)
        values = evaluate(bundle.learner, bundle.params, source.test, SHAPE, split="test", episodes=EPISODES).values
        save_file({"accuracies": values}, file)
    return load_file(file)["accuracies"]


def _learned_temperature(name: str) -> float:
    state, _ = RunFolder(RUNS / name).load_latest(CPU)
    return state[f"{PARAMETERS}{TEACHER_PREFIX}{LOG_TEMPERATURE}"].exp().item()


def _start(temperature: float, chosen: dict[str, dict[str, float]], source: DataSource) -> dict[str, float]:
    """Learn from another temperature; returns which one that led to, and the accuracy on validation tasks."""
    name = f"starting-{temperature}"
    config = _config("temperature", CHOOSING, {**chosen["plain"], "temperature": temperature})
    _train(name, config, source, _teachers("temperature"))
    accuracy = RunFolder(RUNS / name).load_latest(CPU)[1].best_value or 0.0
    return {"from": temperature, "to": _learned_temperature(name), "accuracy": accuracy}


def _seconds(side: str, chosen: dict[str, dict[str, float]], source: DataSource) -> float:
    """Median processor time of an outer step."""
    plan = make_plan(_config(side, 0, _settings(side, chosen)), source, CPU, _teachers(side))
    loop = OuterLoop(plan.estimator, plan.init(generator_for(0, "initialisation")), plan.optimizer, 0)
    durations = []
    for step in range(TIMED_STEPS):
        episodes = source.train.sample(plan.episodes, plan.meta_batch, generator_for(0, "timing", step))
        start = time.process_time()
        loop.step(episodes, step)
        durations.append(time.process_time() - start)
    return median(durations)


def _figures(side: str, accuracies: dict[str, Tensor], seconds: float) -> dict[str, Any]:
    """Accuracy, and gains over the sides before it: the student alone, labels and plain distillation."""
    own = accuracies[side]
    figures: dict[str, Any] = {"accuracy": _summary(own.mean(0)), "ms_per_step": 1000 * seconds}
    for other in ("alone", LABELS, "plain")[: list(SIDES).index(side)]:
        gain = own - accuracies[other]
        figures[f"over {other}"] = {**_summary(gain.mean(0)), "of_seeds": gain.mean(1).tolist()}
    return figures


def _summary(values: Tensor) -> dict[str, float]:
    return {"mean": values.mean().item(), "confidence_interval": confidence_interval(values)}


if __name__ == "__main__":
    main()
