"""Regression of sine waves: trains every method that can, measures it, and draws one curve before and after adapting.

    python benchmarks/sinusoid/run.py [--methods maml snail ...] [--jobs 3]

Mean squared error over 600 unseen waves, 5 and 10 examples, after 1, 5 and 10 inner steps. Runs are kept in
runs/sinusoid/ and resumed. Writes results.json and docs/sinusoid.png.
"""

import argparse
import json
import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from innerloop_learner import Learner, Params, Query, Support
from innerloop_learner.bundle import load_bundle
from innerloop_trainer.data import EpisodeShape, load_source
from innerloop_trainer.evaluation import evaluate
from innerloop_trainer.seeds import generator_for

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine
from training import train

ROOT = Path(__file__).resolve().parent.parent.parent
RUNS = ROOT / "runs" / "sinusoid"
RESULTS = Path(__file__).with_name("results.json")
PICTURE = ROOT / "docs" / "sinusoid.png"
EPISODES, QUERIES = 600, 50
SHOTS = (5, 10)
STEPS = (1, 5, 10)
METHODS = {
    "maml": ["--iterations", "15000", "--steps", "5", "--set", "rate=0.01"],
    # One step, as in its paper: with five steps, learned rates of every weight soon make the loop diverge.
    "meta-sgd": ["--iterations", "15000", "--steps", "1", "--set", "rate=0.01"],
    "lstm-optimizer": ["--iterations", "4000", "--steps", "5", "--learning-rate", "0.002"],
    "meta-lstm": ["--iterations", "4000", "--steps", "5", "--set", "rate=0.01", "--learning-rate", "0.002"],
    "snail": ["--iterations", "6000"],
}


def main() -> None:
    """Train, evaluate, draw, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 1) - 1), help="runs at the same time")
    arguments = parser.parse_args()
    runs = [(method, shots) for method in arguments.methods for shots in SHOTS]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lambda run: _train(*run), runs))
    torch.set_num_threads(1)
    results = json.loads(RESULTS.read_text())["results"] if RESULTS.is_file() else {}
    results |= {method: {} for method in arguments.methods}
    for method, shots in runs:
        results[method][f"{shots} shots"] = _measure(method, shots)
        print(method, shots, results[method][f"{shots} shots"], flush=True)
    RESULTS.write_text(json.dumps({"machine": describe_machine(), "results": results}, indent=2) + "\n")
    _draw(list(results))


def _folder(method: str, shots: int) -> Path:
    return RUNS / f"{method}-{shots}s"


def _train(method: str, shots: int) -> None:
    options = ["--data", "sinusoid", "--shots", str(shots), "--queries", "10", *METHODS[method]]
    train(_folder(method, shots), method, [*options, "--validate-every", "1000", "--test-episodes", "2"])


def _measure(method: str, shots: int) -> dict[str, dict[str, float | None]]:
    """Mean squared error by number of inner steps, or as such for methods without steps."""
    bundle, source = load_bundle(_folder(method, shots) / "bundle"), load_source("sinusoid")
    figures = {}
    for steps in STEPS if bundle.learner.max_steps else (None,):
        result = evaluate(
            bundle.learner,
            bundle.params,
            source.test,
            EpisodeShape(1, shots, QUERIES),
            split="test",
            episodes=EPISODES,
            steps=steps,
        )
        name = "adapted" if steps is None else f"{steps} steps"
        figures[name] = {
            "mean_squared_error": _known(result.mean), "confidence_interval": _known(result.confidence_interval)
        }  # fmt: skip
    return figures


def _known(value: float) -> float | None:
    """None where steps diverged: JSON has no word for numbers that are not finite."""
    return value if math.isfinite(value) else None


def _draw(methods: list[str]) -> None:
    """One unseen wave, ten examples, and what each method makes of them."""
    wave = load_source("sinusoid").test.sample(EpisodeShape(1, 10, 400), 1, generator_for(0, "picture"))
    order = wave.query.x[0, :, 0].argsort()
    x = wave.query.x[0, order, 0]
    figure, axes = plt.subplots(1, len(methods), figsize=(3 * len(methods), 2.6), sharey=True, squeeze=False)
    for axis, method in zip(axes[0], methods, strict=True):
        bundle = load_bundle(_folder(method, 10) / "bundle")
        axis.plot(x, wave.targets[0, order, 0], color="0.6", label="truth")
        for steps, style in ((0, ":"), (1, "--"), (10, "-")) if bundle.learner.max_steps else ((None, "-"),):
            y = _answers(bundle.learner, bundle.params, wave.support, wave.query, steps)[0, order, 0]
            axis.plot(x, y, style, label="adapted" if steps is None else f"{steps} steps")
        axis.plot(wave.support.x[0, :, 0], wave.support.y[0, :, 0], "k^", markersize=4, label="examples")
        axis.set_title(method)
        axis.legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=90)


@torch.no_grad()
def _answers(learner: Learner, params: Params, support: Support, query: Query, steps: int | None) -> torch.Tensor:
    return learner.predict(params, learner.adapt(params, support, steps).state, query)


if __name__ == "__main__":
    main()
