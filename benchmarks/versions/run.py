"""This version of the server and another one side by side, by turns: is what changed as fast as it was?

    python benchmarks/versions/run.py CHECKOUT [--models maml,anil] [--clients 1,8,32] [--rounds 5] [--seconds 2]

CHECKOUT is a working copy of another version with an environment of its own in `.venv` (`make setup` there). It writes
the models, so that both versions can read them. Both servers run all the time, one of them idle; each round measures
every operation on both, and whoever goes first in one round goes second in the next. Writes results.json beside this
file.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "serving"))
from load import ClosedLoop, Endpoint
from machine import describe_machine

from innerloop import Client
from innerloop.tensors import encode_tensor
from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1.tensor_pb2 import Inputs
from innerloop_command.server_process import ServerProcess

SERVICE = "/innerloop.v1.AdaptationService/"
WAYS, QUERIES, TASKS = 5, 25, 32
WARM_UP_SECONDS = 0.5
LABELS = [str(label) for label in range(WAYS)]
WRITE_MODELS = (
    "import sys; from pathlib import Path; from untrained import write_bundles; write_bundles(Path(sys.argv[1]))"
)

Requests = dict[str, tuple[Endpoint, list[bytes]]]


def main() -> None:
    """Measure both versions and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--models", default="maml,anil,protonet")
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn, besides warming up")
    given = parser.parse_args()
    other = given.checkout.resolve() / ".venv" / "bin" / "python"
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="versions-") as folder, ClosedLoop() as loop:
        command = [str(other), "-c", WRITE_MODELS, folder]
        subprocess.run(command, cwd=given.checkout / "benchmarks", check=True)
        for model in given.models.split(","):
            bundle = Path(folder) / model
            with serve(sys.executable, bundle) as this, serve(str(other), bundle) as that:
                for clients in map(int, given.clients.split(",")):
                    measured = by_turns(loop, {"this": this, "other": that}, clients, given.rounds, given.seconds)
                    results.setdefault(model, {})[clients] = measured
                    print(f"{model}, {clients} clients: {summary(measured)}", flush=True)
    content = {"machine": describe_machine(), "results": results}
    Path(__file__).with_name("results.json").write_text(json.dumps(content, indent=2) + "\n")


@contextmanager
def serve(python: str, bundle: Path) -> Iterator[Requests]:
    """Run one version's server; gives what it is asked, by operation."""
    random = np.random.default_rng(0)
    with ServerProcess(bundle, python=python) as server:
        supports = [random.integers(0, 256, (WAYS, 1, 28, 28), np.uint8) for _ in range(TASKS)]
        queries = [random.integers(0, 256, (QUERIES, 1, 28, 28), np.uint8) for _ in range(TASKS)]
        with Client(server.target) as client:
            ids = [client.adapt(bundle.name, support, LABELS).id for support in supports]
        given = [
            pb.Support(inputs=Inputs(tensor=encode_tensor(support)), labels=pb.Labels(values=LABELS))
            for support in supports
        ]
        asked = [Inputs(tensor=encode_tensor(query)) for query in queries]
        messages: dict[str, list[Any]] = {
            "Adapt": [pb.AdaptRequest(model=bundle.name, support=support) for support in given],
            "Predict": [
                pb.PredictRequest(adaptation_id=name, query=query) for name, query in zip(ids, asked, strict=True)
            ],
            "AdaptPredict": [
                pb.AdaptPredictRequest(model=bundle.name, support=support, query=query)
                for support, query in zip(given, asked, strict=True)
            ],
        }
        yield {
            operation: (
                Endpoint("grpc", (server.port,), SERVICE + operation),
                [message.SerializeToString() for message in requests],
            )
            for operation, requests in messages.items()
        }


def by_turns(loop: ClosedLoop, sides: dict[str, Requests], clients: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Answers per second and median latency of each operation on both sides, and their ratios round by round."""
    measured: dict[str, list[dict[str, Any]]] = {}
    for number in range(rounds):
        order = list(sides) if number % 2 == 0 else list(sides)[::-1]
        for operation in sides["this"]:
            turns = {}
            for side in order:
                endpoint, requests = sides[side][operation]
                turn = loop.measure(endpoint, requests, clients, warm_up=WARM_UP_SECONDS, seconds=seconds)
                if turn["errors"]:
                    raise RuntimeError(f"{turn['errors']} requests failed")
                turns[side] = {"per_second": turn["per_second"], "p50_ms": turn["p50_ms"]}
            measured.setdefault(operation, []).append(turns)
    return {
        operation: {
            "times": median(turn["this"]["per_second"] / turn["other"]["per_second"] for turn in turns),
            **{side: {name: median(turn[side][name] for turn in turns) for name in turns[0][side]} for side in sides},
            "rounds": turns,
        }
        for operation, turns in measured.items()
    }


def summary(measured: dict[str, Any]) -> str:
    """One line for a reader."""
    parts = []
    for operation, each in measured.items():
        this, other = (each[side]["per_second"] for side in ("this", "other"))
        parts.append(f"{operation} {this:.0f}/s against {other:.0f}/s ({each['times']:.2f}x)")
    return ", ".join(parts)


if __name__ == "__main__":
    main()
