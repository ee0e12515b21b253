"""ResNet-12 and Conv4-64 on small photographs, by one recipe and one budget.

    python benchmarks/real_images/run.py SMALL_PHOTOS_ZIP [--minutes 15]

The recipe: supervised pre-training on all training classes with crops, flips and colours, then a short episodic
fine-tuning from there. The first 40 classes by name train, the next 4 choose, and the last 20 are unseen. Both see each
training image forty times, as papers compare networks: after as many passes, not after the same time. ResNet-12 has a
quarter of the field's widths, which is what a core can train within an hour, and drops parts as the field's does.
Pre-trained features answer by the nearest centroid, fine-tuned ones by the method of their fine-tuning.

The weight decay of the pre-training, the method of the fine-tuning, and whether to fine-tune at all, are chosen on the
validation classes (4 ways), the first by runs of a fifth of the steps with a seed of their own. Accuracies are of 600
5-way tasks of unseen classes, inductive, the same ones for all; gaps are by episode. Processor time is that of one
thread, by turns. Runs are kept in runs/real_images/ and resumed; with --minutes, what is left is for another call.
Writes results.json when all is done.
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

from innerloop_learner.bundle import load_bundle
from innerloop_learner.host_memory import keep_freed_memory
from innerloop_trainer.config import TrainingConfig
from innerloop_trainer.data import DataSource, EpisodeShape, load_source
from innerloop_trainer.evaluation import confidence_interval, evaluate
from innerloop_trainer.outer_loop import OuterLoop
from innerloop_trainer.plan import make_plan
from innerloop_trainer.runs.folder import RunFolder
from innerloop_trainer.runs.prepare import prepare
from innerloop_trainer.seeds import generator_for

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine

RUNS = Path(__file__).resolve().parent.parent.parent / "runs" / "real_images"
RESULTS = Path(__file__).with_name("results.json")
CPU = torch.device("cpu")
SPLIT = "order=name&val=0.0625&test=0.3125&size=32&color=rgb"
EPISODES, CHOOSING_EPISODES, TIMED_STEPS = 600, 600, 10
CHOOSING_SHAPE = EpisodeShape(4, 1, 15)
"""Validation tasks have this many ways, since there are four classes to choose on."""

SHAPES = {"1 shot": EpisodeShape(5, 1, 15), "5 shots": EpisodeShape(5, 5, 15)}
CHOOSING = 1000
"""Seed of the runs by which settings are chosen."""

STEPS, CHOOSING_STEPS = 8000, 1600
"""Outer steps of the pre-training, and of the runs by which its settings are chosen."""

WEIGHT_DECAYS = (0.05, 0.4)
"""Weight decays of the pre-training to choose from."""

PRE_TRAINING = TrainingConfig(
    "nearest-centroid",
    "small_photos",
    ways=4,
    train_ways=40,
    queries=2,
    meta_batch=1,
    learning_rate=3e-3,
    precision="bfloat16",
    validate_every=2000,
    validation_episodes=200,
    augment="crop?removed=0.4,flip,colour?brightness=0.2&contrast=0.2&saturation=0.2&gray=0",
)
FINE_TUNING = replace(
    PRE_TRAINING,
    train_ways=20,
    queries=5,
    iterations=400,
    learning_rate=3e-4,
    validate_every=100,
    settings={"in_turn": True},
)
METHODS = ("protonet", "r2d2", "lr-d2")
"""Methods of the fine-tuning to choose from."""


SIDES = {
    "ResNet-12": ("resnet12", {"widths": [16, 40, 80, 160], "norm": "batch", "drop": 0.1, "drop_size": 2}),
    "Conv4": ("conv4", {"width": 64, "norm": "batch"}),
}
"""Registered names of the backbones, and their settings."""


class OutOfTimeError(Exception):
    """The minutes of this call are over; the rest is for another."""


@dataclass(frozen=True)
class Bench:
    """What all parts of the benchmark need.

    Attributes:
        source: the photographs.
        deadline: time of the monotonic clock at which this call stops training.
    """

    source: DataSource
    deadline: float

    def train(self, name: str, config: TrainingConfig, start: str | None = None) -> RunFolder:
        """Train a run, or go on with it where it was interrupted; a finished one stays as it is.

        Args:
            name: of the run.
            config: of the run.
            start: name of the run whose parameters it starts from, if there is one.

        Raises:
            OutOfTimeError: the time of this call is over.
        """
        folder = RunFolder(RUNS / name)
        init = None if start is None else RUNS / start
        training = prepare(config, folder, CPU, init=init, resume=folder.exists, source=self.source).training
        if not training.finished:
            training.run(lambda _: None, lambda: time.monotonic() > self.deadline)
            progress = training.progress
            print(f"{name}: step {progress.iteration}, {progress.seconds:.0f} s, {progress.best_value}", flush=True)
        if not training.finished or time.monotonic() > self.deadline:
            raise OutOfTimeError
        return folder

    def validated(self, folder: RunFolder) -> float:
        """The accuracy of a run on tasks of the validation classes."""
        bundle = load_bundle(folder.bundle)
        tasks, seed = self.source.validation, CHOOSING
        return evaluate(
            bundle.learner,
            bundle.params,
            tasks,
            CHOOSING_SHAPE,
            split="validation",
            episodes=CHOOSING_EPISODES,
            seed=seed,
        ).mean

    def pre_trained(self, name: str) -> tuple[str, list[dict[str, Any]]]:
        """The name of a side's pre-trained run, and all settings that were tried for it."""
        backbone, settings = SIDES[name]
        config = replace(PRE_TRAINING, backbone=backbone, backbone_settings=settings)
        tried = list[dict[str, Any]]()
        for decay in WEIGHT_DECAYS:
            choosing = replace(config, weight_decay=decay, iterations=CHOOSING_STEPS, seed=CHOOSING)
            folder = self.train(f"{name}-decay{decay}", choosing)
            tried.append({"weight decay": decay, "accuracy": self.validated(folder)})
        best = max(tried, key=lambda each: each["accuracy"])["weight decay"]
        self.train(f"{name}-pre-trained", replace(config, weight_decay=best, iterations=STEPS))
        return f"{name}-pre-trained", tried

    def fine_tuned(self, name: str, start: str) -> tuple[str, list[dict[str, Any]]]:
        """The name of the fine-tuned run of the best method, and all methods that were tried."""
        config = RunFolder(RUNS / start).load_config()
        tried = []
        for method in METHODS:
            tuning = replace(
                FINE_TUNING, method=method, backbone=config.backbone, backbone_settings=config.backbone_settings
            )
            folder = self.train(f"{name}-{method}", tuning, start)
            tried.append({"method": method, "accuracy": self.validated(folder)})
        best = max(tried, key=lambda each: each["accuracy"])["method"]
        return f"{name}-{best}", tried

    def accuracies(self, name: str) -> dict[str, Tensor]:
        """The accuracies [E] of a run in the test episodes, by shots, measured now or before."""
        file = RUNS / name / "accuracies.safetensors"
        if not file.is_file():
            bundle = load_bundle(RunFolder(RUNS / name).bundle)
            values = {
                shots: evaluate(
                    bundle.learner, bundle.params, self.source.test, shape, split="test", episodes=EPISODES
                ).values
                for shots, shape in SHAPES.items()
            }
            save_file(values, file)
        return load_file(file)

    def milliseconds(self, names: Sequence[str]) -> list[float]:
        """Median processor time of an outer step of each run, by turns."""
        loops = []
        for name in names:
            config = RunFolder(RUNS / name).load_config()
            plan = make_plan(replace(config, init=None), self.source, CPU)
            loops.append(
                (
                    plan,
                    OuterLoop(plan.estimator, plan.init(generator_for(0, "start")), plan.optimizer, 0),
                    list[float](),
                )
            )
        for step in range(TIMED_STEPS):
            for plan, loop, durations in loops:
                start = time.process_time()
                episodes = plan.source.train.sample(plan.episodes, plan.meta_batch, generator_for(0, "timing", step))
                loop.step(episodes, step)
                durations.append(1000 * (time.process_time() - start))
        return [median(durations) for _, _, durations in loops]


def main() -> None:
    """Train, choose, measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", help="zip of small photographs, a folder a class")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after this time, to be continued")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    bench = Bench(load_source(f"images:{arguments.photos}?{SPLIT}"), time.monotonic() + 60 * arguments.minutes)
    try:
        sides = {name: _side(bench, name) for name in SIDES}
    except OutOfTimeError:
        print("out of time; call again to go on", flush=True)
        return
    content = {"machine": describe_machine(), "episodes": EPISODES, "results": _results(bench, sides)}
    RESULTS.write_text(json.dumps(content, indent=2) + "\n")


def _side(bench: Bench, name: str) -> dict[str, Any]:
    """What was tried for a side, and its accuracies [E] by run and shots."""
    start, settings = bench.pre_trained(name)
    tuned, methods = bench.fine_tuned(name, start)
    before = bench.validated(RunFolder(RUNS / start))
    accuracies = {"pre-trained": bench.accuracies(start), "fine-tuned": bench.accuracies(tuned)}
    stage = "fine-tuned" if max(each["accuracy"] for each in methods) > before else "pre-trained"
    return {
        "runs": [start, tuned],
        "tried": {"settings": settings, "pre-trained": before, "methods": methods},
        "accuracies": {**accuracies, "chosen": accuracies[stage]},
    }


def _results(bench: Bench, sides: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Accuracies and processor time of each side, and by how much the first is ahead of the second."""
    names = [run for side in sides.values() for run in side["runs"]]
    times = dict(zip(names, bench.milliseconds(names), strict=True))
    figures = {}
    for name, side in sides.items():
        steps = [RunFolder(RUNS / run).load_config().iterations or 0 for run in side["runs"]]
        figures[name] = {
            "steps": steps,
            "ms_per_step": [times[run] for run in side["runs"]],
            "minutes": sum(count * times[run] for count, run in zip(steps, side["runs"], strict=True)) / 60_000,
            "tried": side["tried"],
            **{stage: _summaries(values) for stage, values in side["accuracies"].items()},
        }
    ours, theirs = (side["accuracies"] for side in sides.values())
    gaps = {stage: _summaries({shots: ours[stage][shots] - theirs[stage][shots] for shots in SHAPES}) for stage in ours}
    return {"sides": figures, "gaps": gaps}


def _summaries(values: dict[str, Tensor]) -> dict[str, Any]:
    return {
        shots: {"mean": own.mean().item(), "confidence_interval": confidence_interval(own)}
        for shots, own in values.items()
    }


if __name__ == "__main__":
    main()
