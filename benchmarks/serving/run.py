"""Innerloop beside the servers that a user would write today: plain gRPC, LitServe, Ray Serve.

    python benchmarks/serving/run.py [--device auto|cpu|cuda] [--seconds 15] [--clients 1,8,32] [--only NAME ...]

Every server answers the same requests with the same weights: MAML with Conv4-64 (max-pooling, norms from the support
set), 5-way 1-shot 28x28, 5 SGD steps on all weights, then 25 queries; uint8 images in, probabilities out. One server
runs at a time. Before it is measured, its answers to all tasks at once are compared with float64. Clients run in a
closed loop and send bytes that were encoded before. The peers are installed into an environment of their own, and
their programs are in peers/. Writes results.json, unless `--only` leaves servers out, and prints a table.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from environment import make_environment, versions
from load import ClosedLoop
from machine import describe_machine
from numpy.typing import NDArray
from operation import Operation
from ours import serve_innerloop
from servers import peers
from table import OURS, compare, markdown
from task import TASKS, make_tasks, right_answers, write_model

RESULTS = Path(__file__).with_name("results.json")
TOLERANCE = {"cpu": 1e-3, "cuda": 5e-2}
"""Of a probability; on GPUs, convolutions round to TF32 by default, and steps amplify that."""

SETTLE_SECONDS, WARM_UP_SECONDS = 5.0, 3.0
"""For each server with all clients, so that every worker is warm; and for each number of clients."""

Serve = Callable[[], AbstractContextManager[list[Operation]]]


def main() -> None:
    """Measure all servers and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--seconds", type=float, default=15.0, help="for each number of clients, besides warming up")
    parser.add_argument("--clients", type=_numbers, default=(1, 8, 32), help="separated by commas")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="servers whose names begin like one of these")
    parser.add_argument("--peers-python", type=Path, help="a Python that has the peers' packages; made if not given")
    given = parser.parse_args()
    # Servers are processes of their own: they are stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    device = given.device if given.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    python = given.peers_python or make_environment()
    load_before = os.getloadavg()[0]
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="serving-") as folder, ClosedLoop() as loop:
        models, weights = Path(folder) / "models", Path(folder) / "weights.pt"
        write_model(models, weights)
        tasks = make_tasks()
        right = right_answers(tasks, weights)
        servers: dict[str, Serve] = {OURS: partial(serve_innerloop, models, device, tasks)}
        servers |= {peer.name: partial(peer.serve, python, weights, device, tasks) for peer in peers(device)}
        for name, serve in servers.items():
            if given.only and not name.lower().startswith(tuple(only.lower() for only in given.only)):
                continue
            print(f"{name} ...", flush=True)
            measured[name] = _measure(serve, loop, right, TOLERANCE[device], given.clients, given.seconds)
    results = {
        "machine": describe_machine(),
        "load_before": load_before,
        "device": device,
        "peers": versions(python),
        "seconds": given.seconds,
        "servers": measured,
        "comparison": compare(measured),
    }
    if not given.only:
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(markdown(measured, given.clients))


def _measure(
    serve: Serve,
    loop: ClosedLoop,
    right: list[NDArray[Any]],
    tolerance: float,
    clients: tuple[int, ...],
    seconds: float,
) -> dict[str, Any]:
    """Figures of each operation of a server by number of clients, or what went wrong."""
    figures: dict[str, Any] = {}
    try:
        with serve() as operations:
            for operation in operations:
                difference = operation.largest_difference(right)
                if not difference <= tolerance:
                    raise RuntimeError(f"{operation.name} is wrong: a probability differs by {difference:.1g}")
                send = partial(loop.measure, operation.endpoint, operation.requests)
                send(TASKS, warm_up=0.0, seconds=SETTLE_SECONDS)
                points = {str(count): send(count, warm_up=WARM_UP_SECONDS, seconds=seconds) for count in clients}
                figures[operation.name] = {"largest_difference": difference, "clients": points}
    except Exception as error:
        print(f"failed: {error}", flush=True)
        figures["failed"] = f"{type(error).__name__}: {error}"
    return figures


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    main()
