"""Cost of lower precision of training in accuracy: the same runs, trained in float32 and in faster, rounder types.

    python benchmarks/precision/training.py [--device cpu|cuda] [--iterations 300] [--seeds 2] [--episodes 600]
                                            [--out FILE]

Each method trains on embedded glyphs once for each seed and precision, from the same weights on the same tasks. What
was trained is measured in float32, as it is served: 5-way 1-shot, on episodes of unseen characters; differences are
paired by episode, and averaged over seeds first. Runs that round differently go apart as runs of other seeds do, so
each seed's difference is there, too. Writes training.json, of a GPU training-cuda.json, unless a file is named.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from intervals import half_width
from machine import describe_machine
from numpy.typing import NDArray

from innerloop_learner.bundle import load_bundle
from innerloop_trainer.config import Precision, TrainingConfig
from innerloop_trainer.data import DataSource, EpisodeShape, load_source
from innerloop_trainer.devices import choose_device
from innerloop_trainer.evaluation import evaluate
from innerloop_trainer.runs.folder import RunFolder
from innerloop_trainer.runs.prepare import prepare

CONFIGS = {
    "protonet": {"train_ways": 20, "queries": 5},
    "maml": {"meta_batch": 4, "queries": 5, "steps": 3},
}
"""Settings of each method besides its defaults: smaller tasks, and fewer."""

SHAPE = EpisodeShape(5, 1, 15)


def trained(
    method: str, precision: Precision, seed: int, given: argparse.Namespace, source: DataSource, device: torch.device
) -> NDArray[Any]:
    """Accuracies of the episodes after a run."""
    config = TrainingConfig(
        method,
        "glyphs",
        seed=seed,
        iterations=given.iterations,
        validate_every=given.iterations,
        validation_episodes=25,
        precision=precision,
        **CONFIGS[method],  # type: ignore[arg-type]
    )
    with tempfile.TemporaryDirectory() as name:
        folder = RunFolder(Path(name) / "run")
        prepare(config, folder, device, source=source).training.run(lambda _: None, lambda: False)
        bundle = load_bundle(folder.bundle, device)
    measured = evaluate(bundle.learner, bundle.params, source.test, SHAPE, split="test", episodes=given.episodes)
    values: NDArray[Any] = measured.values.numpy()
    return values


def compared(runs: dict[str, list[NDArray[Any]]]) -> dict[str, dict[str, Any]]:
    """Accuracy in percent, and the paired difference to float32 with the half width of its 95% interval."""
    means = {precision: np.mean(own, axis=0) for precision, own in runs.items()}
    result = {}
    for precision, own in runs.items():
        difference = 100 * (means[precision] - means["float32"])
        result[precision] = {
            "accuracy": 100 * float(means[precision].mean()),
            "difference": float(difference.mean()),
            "confidence_interval": half_width(difference.tolist()),
            "by_seed": [
                100 * float((values - exact).mean()) for values, exact in zip(own, runs["float32"], strict=True)
            ],
        }
    return result


def main() -> None:
    """Train every method in every precision that the device has, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    device = choose_device(given.device)
    source = load_source("glyphs", device)
    precisions: list[Precision] = ["float32", *(["tf32"] if device.type == "cuda" else []), "bfloat16"]  # type: ignore[list-item]
    results = {}
    for method in CONFIGS:
        runs: dict[str, list[NDArray[Any]]] = {precision: [] for precision in precisions}
        for seed in range(given.seeds):
            for precision in precisions:
                runs[precision].append(trained(method, precision, seed, given, source, device))
        results[method] = compared(runs)
        print(method, json.dumps(results[method]), flush=True)
    named = Path(__file__).with_name("training-cuda.json" if device.type == "cuda" else "training.json")
    settings = {"iterations": given.iterations, "seeds": given.seeds, "episodes": given.episodes, "configs": CONFIGS}
    content = {"machine": describe_machine(), "settings": settings, "results": results}
    (given.out or named).write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
