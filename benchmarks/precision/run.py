"""Cost of lower precision in accuracy: the same episodes, served in float32 and in faster, rounder types.

    python benchmarks/precision/run.py PATH_OF_OMNIGLOT MODEL_FOLDER [--device auto|cpu|cuda]

5-way 1-shot with 15 queries a class, 600 episodes of unseen characters; the difference is paired by episode.
MODEL_FOLDER holds trained bundles, of which `MODELS` are measured. Writes results.json, of a GPU
results-cuda.json, and prints a line for each.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from innerloop import Client
from innerloop_command.server_process import ServerProcess
from innerloop_trainer.data import ClassExamples, EpisodeShape, load_source

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine, on_gpu, results_file
from served import served_accuracies

MODELS = ("protonet", "anil", "maml")
SHAPE, EPISODES = EpisodeShape(5, 1, 15), 600


def main() -> None:
    """Measure every model in every precision that the device has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("omniglot", type=Path)
    parser.add_argument("models", type=Path)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    given = parser.parse_args()
    sampler = load_source(f"omniglot:{given.omniglot}").test
    if not isinstance(sampler, ClassExamples):
        raise TypeError("Omniglot consists of images")
    accuracies: dict[str, dict[str, Any]] = {name: {} for name in MODELS}
    for precision in ("float32", *(("tf32",) if on_gpu(given.device) else ()), "bfloat16"):
        with (
            ServerProcess(given.models, device=given.device, precision=precision) as server,
            Client(server.target) as client,
        ):
            for name in MODELS:
                accuracies[name][precision] = served_accuracies(client, name, sampler, SHAPE, EPISODES)
    results = {name: _compared(measured) for name, measured in accuracies.items()}
    for name, result in results.items():
        print(name, json.dumps(result))
    content = {"machine": describe_machine(), "results": results}
    results_file(__file__, given.device).write_text(json.dumps(content, indent=2) + "\n")


def _compared(accuracies: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Accuracy in percent, and the paired difference to float32 with the half width of its 95% confidence interval."""
    compared = {}
    for precision, values in accuracies.items():
        difference = 100 * (values - accuracies["float32"])
        compared[precision] = {
            "accuracy": 100 * float(values.mean()),
            "difference": float(difference.mean()),
            "confidence_interval": 1.96 * float(difference.std(ddof=1) / np.sqrt(len(difference))),
        }
    return compared


if __name__ == "__main__":
    main()
