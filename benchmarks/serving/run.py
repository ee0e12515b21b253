"""Innerloop beside the servers that a user would write today: plain gRPC, LitServe, Ray Serve.

    python benchmarks/serving/run.py [--device auto|cpu|cuda] [--seconds 15] [--clients 1,8,32] [--only NAME ...]

Every server answers the same requests with the same weights: MAML with Conv4-64 (max-pooling, norms from the support
set), 5-way 1-shot 28x28, 5 SGD steps on all weights, then 25 queries; uint8 images in, probabilities out. One server
runs at a time. Before it is measured, its answers to all tasks at once are compared with float64. Clients run in a
closed loop and send bytes that were encoded before. The peers are installed into an environment of their own, and
their programs are in peers/. Writes results.json, of a GPU results-cuda.json, unless `--only` leaves servers out, and
prints a table.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from environment import make_environment, versions
from load import ClosedLoop
from machine import describe_machine, on_gpu, results_file
from measuring import Measuring, Serve
from ours import serve_innerloop
from servers import Peer, peers
from table import OURS, compare, markdown
from task import make_tasks, right_answers, write_model

REQUIREMENTS = Path(__file__).with_name("requirements.txt")

TOLERANCE = {"cpu": 5e-3, "cuda": 5e-2}
"""Largest difference of a probability from the right one. A ReLU that flips by rounding moves it by 0.001, one step too
few
by 0.02. On GPUs, convolutions round to TF32 by default, and inner steps amplify that."""


def main() -> None:
    """Measure all servers and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--seconds", type=float, default=15.0, help="for each number of clients, besides warming up")
    parser.add_argument("--clients", type=_numbers, default=(1, 8, 32), help="separated by commas")
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="servers with such a name's beginning")
    parser.add_argument("--peers-python", type=Path, help="a Python that has the peers' packages; made if not given")
    given = parser.parse_args()
    # Leaving by an exception is what stops the servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    torch.set_num_threads(1)
    device = resolved(given.device)
    chosen = tuple(name.lower() for name in given.only)
    python = given.peers_python or make_environment(REQUIREMENTS)
    load_before = os.getloadavg()
    servers: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="serving-") as folder, ClosedLoop() as loop:
        models, weights = Path(folder) / "models", Path(folder) / "weights.pt"
        write_model(models, weights)
        tasks = make_tasks()
        measuring = Measuring(loop, right_answers(tasks, weights), TOLERANCE[device], given.clients, given.seconds)

        def serve(peer: Peer) -> Serve:
            return partial(peer.serve, python, weights, device, tasks)

        if OURS.lower().startswith(chosen):
            servers[OURS] = measuring.measure(partial(serve_innerloop, models, device, tasks))
            _tell(OURS, servers[OURS])
        for peer in peers(device):
            if peer.name.lower().startswith(chosen):
                if peer.thread_choices:
                    choices = {threads: serve(replace(peer, threads=threads)) for threads in peer.thread_choices}
                    peer = replace(peer, threads=measuring.best(choices, peer.batch))
                servers[peer.name] = {"settings": asdict(peer), **measuring.measure(serve(peer))}
                _tell(peer.name, servers[peer.name])
    results = {
        "machine": describe_machine(),
        "load_before": load_before,
        "device": device,
        "peers": versions(python, REQUIREMENTS),
        "seconds": given.seconds,
        "servers": servers,
        "comparison": compare(servers),
    }
    if chosen == ("",):
        results_file(__file__, device).write_text(json.dumps(results, indent=2) + "\n")
    print(markdown(servers, given.clients))


def resolved(device: str) -> str:
    """The device that "auto" stands for."""
    return device if device != "auto" else "cuda" if on_gpu(device) else "cpu"


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _tell(name: str, figures: dict[str, Any]) -> None:
    print(f"{name}: {figures.get('failed', 'measured')}", flush=True)


if __name__ == "__main__":
    main()
