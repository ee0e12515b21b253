"""Innerloop and the best peer at each number of clients side by side, by turns: `run.py` measures them minutes apart.

    python benchmarks/serving/pairs.py [--device auto|cpu|cuda] [--rounds 5] [--seconds 4]

Takes from results.json (results-cuda.json of a GPU) which peer was best and its settings, and adds what it measures.
Both servers run all the time, one of them idle.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from environment import make_environment
from load import ClosedLoop
from machine import describe_machine, results_file
from operation import Operation
from ours import serve_innerloop
from run import REQUIREMENTS, resolved
from servers import Peer
from task import make_tasks, write_model

WARM_UP_SECONDS = 2.0


def main() -> None:
    """Measure every pair and add them to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each server's turn, besides warming up")
    given = parser.parse_args()
    device = resolved(given.device)
    file = results_file(__file__, device)
    results = json.loads(file.read_text())
    python, tasks, pairs = make_environment(REQUIREMENTS), make_tasks(), {}
    with tempfile.TemporaryDirectory(prefix="serving-") as folder, ClosedLoop() as loop:
        models, weights = Path(folder) / "models", Path(folder) / "weights.pt"
        write_model(models, weights)
        for clients, compared in results["comparison"].items():
            peer = Peer(**results["servers"][compared["best_peer"]]["settings"])
            with (
                serve_innerloop(models, device, tasks) as (ours, _),
                peer.serve(python, weights, device, tasks) as (its,),
            ):
                sides, rounds = [("ours", ours), ("peer", its)], []
                for _ in range(given.rounds):
                    rates = {side: _rate(loop, one, int(clients), given.seconds) for side, one in sides}
                    rounds.append(rates | {"times": rates["ours"] / rates["peer"]})
                    sides.reverse()  # whoever comes first finds the machine in another state
            pairs[clients] = _summary(peer.name, rounds)
            print(f"{clients} clients: {pairs[clients]}", flush=True)
    results["pairs"] = {"machine": describe_machine(), "clients": pairs}
    file.write_text(json.dumps(results, indent=2) + "\n")


def _rate(loop: ClosedLoop, operation: Operation, clients: int, seconds: float) -> float:
    """Answers a second, none of them an error."""
    measured = loop.measure(operation.endpoint, operation.requests, clients, warm_up=WARM_UP_SECONDS, seconds=seconds)
    if measured["errors"]:
        raise RuntimeError(f"{measured['errors']} requests failed")
    rate: float = measured["per_second"]
    return rate


def _summary(peer: str, rounds: list[dict[str, float]]) -> dict[str, Any]:
    medians = {figure: median(one[figure] for one in rounds) for figure in rounds[0]}
    return {"best_peer": peer, **medians, "rounds": rounds}


if __name__ == "__main__":
    main()
