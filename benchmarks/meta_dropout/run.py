"""Meta-dropout on Omniglot: MAML with learned noise in its inner loop, with fixed noise, and without noise.

    python benchmarks/meta_dropout/run.py PATH_OF_OMNIGLOT [--settings 20w1s 5w1s] [--jobs 1]

Every run trains on the same number of tasks, with strided Conv4-32, 3 inner steps, the same outer rate, and no choice
by validation. It is measured on 600 episodes of unseen characters (random split, inductive), the same for all runs, and
on 150 of training characters: a regulariser could close what lies between. Gains are those of one episode after the
other, averaged over seeds. Finished runs are kept in runs/meta_dropout/ and not made again. Seconds are those of one
thread's processor time, since runs share the processors. Writes results.json.
"""

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from innerloop_learner import InputSpec, Learner, LearnerSpec, build_learner
from innerloop_learner.acceleration import accelerated
from innerloop_learner.host_memory import keep_freed_memory
from innerloop_learner.objectives import build_objective
from innerloop_learner.tasks import Params
from innerloop_trainer.data import DataSource, EpisodeShape, load_source
from innerloop_trainer.evaluation import confidence_interval, evaluate
from innerloop_trainer.outer_loop import OptimizerPlan, OuterLoop, build_estimator
from innerloop_trainer.seeds import generator_for

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine

ROOT = Path(__file__).resolve().parent.parent.parent
RUNS = ROOT / "runs" / "meta_dropout"
RESULTS = Path(__file__).with_name("results.json")
NOISES = ("none", "fixed", "meta_dropout")
SEEDS = (0, 1)
EPISODES, SEEN_EPISODES, ADAPTATIONS = 600, 150, 15
STEPS, RATE, LEARNING_RATE, WIDTH = 3, 0.2, 0.003, 32


@dataclass(frozen=True)
class Setting:
    """Tasks, and how many to train on.

    Attributes:
        training: shape of the episodes of training.
        measured: shape of the episodes that are measured.
        iterations: outer steps.
        meta_batch: tasks per outer step.
        samples: numbers of samples per inner step that learned noise is measured with; others are measured with one.
    """

    training: EpisodeShape
    measured: EpisodeShape
    iterations: int
    meta_batch: int
    samples: tuple[int, ...]

    def samples_of(self, noise: str) -> tuple[int, ...]:
        """The numbers of samples that a noise is measured with."""
        return self.samples if noise == "meta_dropout" else (1,)


SETTINGS = {
    "20w1s": Setting(EpisodeShape(20, 1, 2), EpisodeShape(20, 1, 2), 120, 4, (1,)),
    "5w1s": Setting(EpisodeShape(5, 1, 3), EpisodeShape(5, 1, 8), 200, 8, (1, 5)),
}


def main() -> None:
    """Train, measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("omniglot", type=Path, help="folder with images_background.zip and images_evaluation.zip")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    arguments = parser.parse_args()
    RUNS.mkdir(parents=True, exist_ok=True)
    runs = [(name, noise, seed) for name in arguments.settings for seed in SEEDS for noise in NOISES]
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as pool:
        futures = {run: pool.submit(_kept, arguments.omniglot, *run) for run in runs}
        measured = {run: future.result() for run, future in futures.items()}
    results = json.loads(RESULTS.read_text())["results"] if RESULTS.is_file() else {}
    for name in arguments.settings:
        results[name] = {noise: _figures(name, noise, measured) for noise in NOISES}
        print(name, json.dumps(results[name], indent=2), flush=True)
    content = {"machine": describe_machine(), "episodes": EPISODES, "seeds": len(SEEDS), "results": results}
    RESULTS.write_text(json.dumps(content, indent=2) + "\n")


def _kept(omniglot: Path, name: str, noise: str, seed: int) -> dict[str, Any]:
    """What a run gave, made now or before."""
    file = RUNS / f"{name}-{noise}-{seed}.json"
    if not file.is_file():
        file.write_text(json.dumps(_run(load_source(f"omniglot:{omniglot}"), name, noise, seed)))
    return json.loads(file.read_text())


def _run(source: DataSource, name: str, noise: str, seed: int) -> dict[str, Any]:
    """Train, and measure the accuracies of single episodes, and processor times."""
    torch.set_num_threads(1)
    keep_freed_memory()
    setting, spec = SETTINGS[name], _spec(source.input, SETTINGS[name].training.ways, noise)
    learner = build_learner(spec)
    estimator = build_estimator("backpropagation", build_objective(learner), {})
    start = learner.init(generator_for(seed, "initialisation"))
    plan = OptimizerPlan(setting.iterations, LEARNING_RATE, gradient_clip=10.0)
    loop, began = OuterLoop(estimator, start, plan, seed), time.process_time()
    for iteration in range(setting.iterations):
        episodes = source.train.sample(setting.training, setting.meta_batch, generator_for(seed, "training", iteration))
        loop.step(episodes, iteration)
    outcome: dict[str, Any] = {"training_s": time.process_time() - began}
    for samples in setting.samples_of(noise):
        served = accelerated(_sampling(spec, samples), "cpu")
        measure = partial(evaluate, served, loop.params, shape=setting.measured)
        outcome[str(samples)] = {
            "unseen": measure(source.test, split="test", episodes=EPISODES).values.tolist(),
            "adapt_ms": _adapt_ms(served, loop.params, source, setting.measured),
        }
        if samples == 1:
            outcome["seen"] = measure(source.train, split="train", episodes=SEEN_EPISODES).values.tolist()
    return outcome


def _spec(inputs: InputSpec, ways: int, noise: str) -> LearnerSpec:
    backbone = {"width": WIDTH, "downsample": "stride", "noise": noise}
    return LearnerSpec(
        "maml", inputs, max_ways=ways, backbone_settings=backbone, settings={"steps": STEPS, "rate": RATE}
    )


def _sampling(spec: LearnerSpec, samples: int) -> Learner:
    return build_learner(replace(spec, backbone_settings={**spec.backbone_settings, "noise_samples": samples}))


def _adapt_ms(learner: Learner, params: Params, source: DataSource, shape: EpisodeShape) -> float:
    """Milliseconds of processor time to adapt to one task, the median of some."""
    support = source.test.sample(shape, 1, generator_for(0, "meta_dropout")).support
    times = []
    with torch.no_grad():
        for _ in range(ADAPTATIONS):
            began = time.process_time()
            learner.adapt(params, support)
            times.append(1000 * (time.process_time() - began))
    return median(times)


def _figures(name: str, noise: str, measured: dict[tuple[str, str, int], dict[str, Any]]) -> dict[str, Any]:
    """Accuracies, gains over no noise and over fixed noise, and costs of one noise, over seeds."""
    runs = [measured[name, noise, seed] for seed in SEEDS]
    plain, fixed = (_values([measured[name, other, seed]["1"]["unseen"] for seed in SEEDS]) for other in NOISES[:2])
    figures: dict[str, Any] = {"samples": {}}
    for samples in map(str, SETTINGS[name].samples_of(noise)):
        values = _values([run[samples]["unseen"] for run in runs])
        gains = values - plain
        figures["samples"][samples] = {
            "accuracy": _summary(values.mean(0)),
            "over_none": _summary(gains.mean(0)),
            "over_none_by_seed": [_summary(own) for own in gains],
            "over_fixed": _summary((values - fixed).mean(0)),
            "adapt_ms": median(run[samples]["adapt_ms"] for run in runs),
        }
    figures["seen"] = _summary(_values([run["seen"] for run in runs]).mean(0))
    figures["training_s"] = median(run["training_s"] for run in runs)
    return figures


def _values(runs: list[list[float]]) -> Tensor:
    """Accuracies [seeds, episodes]."""
    return torch.tensor(runs, dtype=torch.float64)


def _summary(values: Tensor) -> dict[str, float]:
    """Mean and half width of its 95% confidence interval."""
    return {"mean": values.mean().item(), "confidence_interval": confidence_interval(values)}


if __name__ == "__main__":
    main()
