"""What it saves to compute frozen blocks once: `partial-maml` whose last block and head adapt in 5 steps.

    python benchmarks/frozen_blocks/run.py [conv4] [resnet12]

Conv4-64, and a ResNet-12 of a quarter of the usual widths. 4 tasks of 5 ways, 5 shots and 15 queries a class, images of
28x28 pixels, float32, one thread. Computing time of adapting as it is served and of an outer step, with all blocks in
every inner step and with frozen ones once, by turns, the least of three. Writes results.json.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from innerloop_learner import Episodes, InputSpec, LearnerSpec, Query, Support, build_learner
from innerloop_learner.acceleration import accelerated
from innerloop_learner.methods.partial_maml import PartialMAML
from innerloop_learner.objectives import Stage, build_objective
from innerloop_trainer.outer_loop.estimators.backpropagation import backpropagate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine, results_file

TASKS, WAYS, SHOTS, QUERIES, STEPS, TURNS = 4, 5, 5, 15, 5, 3
NETWORKS = {"conv4": {}, "resnet12": {"widths": [16, 40, 80, 160]}}
RESULTS = results_file(__file__, "cpu")


def main() -> None:
    """Measure each network and write results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    torch.set_num_threads(1)
    results = json.loads(RESULTS.read_text())["results"] if RESULTS.exists() else {}
    for backbone in parser.parse_args().networks:
        results[backbone] = measured(backbone)
        print(backbone, json.dumps(results[backbone], indent=2))
        content = {"machine": describe_machine(), "results": results}
        RESULTS.write_text(json.dumps(content, indent=2) + "\n")


def measured(backbone: str) -> dict[str, dict[str, float]]:
    """Seconds of both ways with a network, of adapting and of an outer step."""
    generator = torch.Generator().manual_seed(0)
    once, always = make_learner(backbone), make_learner(backbone)
    always.frozen_blocks = 0
    params, episodes = once.init(generator), make_episodes(generator)
    seconds: dict[str, dict[str, float]] = {"adapt": {}, "outer_step": {}}
    for _ in range(TURNS):
        for name, learner in (("once", once), ("every_step", always)):
            keep_least(seconds["adapt"], name, partial(adapt, learner, params, episodes))
            outer_step = partial(backpropagate, build_objective(learner), params, episodes, Stage())
            keep_least(seconds["outer_step"], name, outer_step)
    return {name: {**of, "times_faster": of["every_step"] / of["once"]} for name, of in seconds.items()}


def make_learner(backbone: str) -> PartialMAML:
    """The learner as a CPU serves and trains it."""
    settings = {"steps": STEPS, "adapts": ["block3", "head"]}
    spec = LearnerSpec(
        "partial-maml",
        InputSpec((1, 28, 28)),
        backbone=backbone,
        backbone_settings=NETWORKS[backbone],
        settings=settings,
    )
    learner = accelerated(build_learner(spec), "cpu")
    if not isinstance(learner, PartialMAML):
        raise TypeError("the method is partial-maml")
    return learner


def make_episodes(generator: torch.Generator) -> Episodes:
    """Tasks of random images."""
    (x, y), (query, targets) = (examples(each, generator) for each in (SHOTS, QUERIES))
    support = Support(x, y, torch.ones(y.shape, dtype=torch.bool), torch.full((TASKS,), WAYS), WAYS)
    return Episodes(support, Query(query, torch.ones(targets.shape, dtype=torch.bool)), targets)


def examples(each: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """So many random images of each class [T, N, 1, 28, 28], and their labels [T, N]."""
    x = torch.randn(TASKS, WAYS * each, 1, 28, 28, generator=generator)
    return x, torch.arange(WAYS).repeat_interleave(each).expand(TASKS, -1)


def adapt(learner: PartialMAML, params: dict[str, torch.Tensor], episodes: Episodes) -> None:
    """Adapt without gradients through it, as a server does."""
    with torch.no_grad():
        learner.adapt(params, episodes.support)


def keep_least(seconds: dict[str, float], name: str, work: Callable[[], object]) -> None:
    """Time some work, and keep the least time under its name."""
    start = time.process_time()
    work()
    seconds[name] = min(seconds.get(name, float("inf")), time.process_time() - start)


if __name__ == "__main__":
    main()
