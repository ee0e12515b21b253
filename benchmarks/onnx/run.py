"""Adapt and Predict of every method, PyTorch against ONNX Runtime: time, and size of the graphs.

    python benchmarks/onnx/run.py [--device auto|cpu|cuda] [--threads 1] [--rounds 15] [--seconds 0.3]
                                  [--methods protonet,maml] [--out FILE]

Untrained Conv4-64s on 28x28 images, 5-way 1-shot, 25 queries, five steps for methods with steps. Both engines are those
of the server, in one process, one task at a time on as many threads; they take turns, so that what else the machine
does hits both. PyTorch runs eagerly; on a GPU it is also timed as the server prepares it, captured as CUDA graphs.

The first run exports the models, several seconds each, and keeps them in runs/onnx-models until the code that makes
graphs changes. Writes results.json, of which it replaces the device's part, and prints a table.
"""

import argparse
import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

from innerloop_server.commands import SPINS

os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # before PyTorch is imported

import numpy as np
import onnxruntime
import torch

from innerloop_learner.host_memory import keep_freed_memory
from innerloop_learner.learner import methods
from innerloop_server.domain.tasks import SupportSet
from innerloop_server.engine.interface import LoadedModel
from innerloop_server.engine.onnx.engine import OnnxEngine, OnnxSettings
from innerloop_server.engine.pytorch.engine import TorchEngine, TorchSettings

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine
from models import Portable, exported
from table import markdown
from timing import Timing, summary
from untrained import IMAGES, QUERIES, SHOTS, WAYS

RESULTS = Path(__file__).with_name("results.json")
EAGER, CAPTURED, ONNX = "pytorch", "pytorch captured", "onnxruntime"


def main() -> None:
    """Measure every method, write the results and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, default=1, help="of a computation on a CPU")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.3, help="of an engine's turn in a round")
    parser.add_argument("--methods", default=",".join(sorted(methods)), help="separated by commas")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON to write")
    given = parser.parse_args()
    if given.device == "auto":
        both = torch.cuda.is_available() and "CUDAExecutionProvider" in onnxruntime.get_available_providers()
        given.device = "cuda" if both else "cpu"
    keep_freed_memory()
    portable = {method: exported(method) for method in given.methods.split(",")}
    measuring = Measuring(given.device, given.threads, given.rounds, given.seconds)
    results = {}
    for method, bundle in portable.items():
        results[method] = {"refused": bundle.graphs.refused} if bundle.graphs.refused else measuring.measure(bundle)
        print(method, json.dumps(results[method]), flush=True)
    device = {
        "machine": {**describe_machine(), "onnxruntime": onnxruntime.__version__},
        "threads": given.threads if given.device == "cpu" else None,
        "rounds": given.rounds,
        "methods": results,
    }
    before = json.loads(given.out.read_text())["results"] if given.out.is_file() else {}
    given.out.write_text(json.dumps({"results": {**before, given.device: device}}, indent=2) + "\n")
    print("\n" + markdown(results))


class Measuring:
    """Measures one model after another, on engines set up alike.

    Args:
        device: "cpu" or "cuda".
        threads: of a computation on a CPU.
        rounds: of every engine's turns.
        seconds: of a turn.
    """

    def __init__(self, device: str, threads: int, rounds: int, seconds: float) -> None:
        self._on_gpu = device == "cuda"
        self._torch = TorchEngine(TorchSettings(device, threads, lanes=1))
        self._onnx = OnnxEngine(OnnxSettings(device, threads, lanes=1))
        self._rounds, self._seconds = rounds, seconds

    def measure(self, bundle: Portable) -> dict[str, Any]:
        """Times of both operations, sizes of files and graphs, and how far the engines' answers are apart."""
        random = np.random.default_rng(0)
        x = random.integers(0, 256, (WAYS * SHOTS, *IMAGES.shape), dtype=np.uint8)
        support = SupportSet(x, np.arange(WAYS * SHOTS) % WAYS, WAYS)
        query = random.integers(0, 256, (QUERIES, *IMAGES.shape), dtype=np.uint8)
        steps = bundle.traits.default_steps
        timing = Timing(self._models(bundle), support, query, steps, self._seconds)
        difference = timing.difference()
        gc.collect()
        times = summary(timing.rounds(self._rounds), EAGER, ONNX)
        sizes = {"steps": steps, "bytes": bundle.files(), "nodes": bundle.nodes()}
        return {**times, **sizes, "largest_difference": difference}

    def _models(self, bundle: Portable) -> dict[str, LoadedModel]:
        models = {EAGER: self._torch.load(bundle.path.name, bundle.path)}
        if self._on_gpu:
            models[CAPTURED] = self._torch.load(bundle.path.name, bundle.path)
            models[CAPTURED].prepare()
        return {**models, ONNX: self._onnx.load(bundle.path.name, bundle.path)}


if __name__ == "__main__":
    main()
