"""Starts and stops servers many times, with worker processes and front ends, and counts those that end badly.

    python benchmarks/hostile/starts.py [--count 200] [--more] [--out FILE]

Every server holds three models and answers a call before it is stopped; every other one has two front ends. Workers are
killed under way in every third, so that they are replaced. Writes starts.json after each start, so that nothing is lost
when it is interrupted; with --more, counts on from what is there.
"""

import argparse
import contextlib
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil

from innerloop import Client
from innerloop_command.server_process import ServerProcess, ServerStartError

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine
from untrained import SPECS, write_bundles

LANES = 2

START_SECONDS = 300.0
"""How long a server may take to start, since a busy machine is no fault of it."""


def main() -> None:
    """Start servers and write starts.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--more", action="store_true", help="count on from what the file holds")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("starts.json"))
    given = parser.parse_args()
    before = json.loads(given.out.read_text()) if given.more else {"outcomes": {}, "seconds": 0}
    outcomes = Counter[str](before["outcomes"])
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="starts-") as folder:
        models = write_bundles(
            Path(folder) / "models", {f"{name}-{n}": SPECS[name] for name in ("anil",) for n in "abc"}
        )
        for number in range(given.count):
            outcome = _start(models, number)
            outcomes[outcome] += 1
            if outcome != "well":
                print(f"start {number}: {outcome}", file=sys.stderr)
            seconds = round(before["seconds"] + time.monotonic() - began)
            counts = {"starts": outcomes.total(), "outcomes": outcomes, "seconds": seconds}
            given.out.write_text(json.dumps({"machine": describe_machine(), **counts}, indent=2) + "\n")
    print(given.out.read_text())


def _start(models: Path, number: int) -> str:
    """How one server's life went, from start to stop."""
    server = ServerProcess(
        models, lanes=LANES, threads=1, device="cpu", frontends=2 * (number % 2), start_seconds=START_SECONDS
    )
    try:
        with server, Client(server.target) as client:
            images = np.zeros((10, *client.model("anil-a").input_shape), np.uint8)
            client.adapt("anil-a", images, [str(label) for label in range(5)] * 2)
            if number % 3 == 0:
                for child in psutil.Process(server.process.pid).children():
                    if "worker_process" in " ".join(child.cmdline()):
                        child.kill()
                client.adapt("anil-b", images, [str(label) for label in range(5)] * 2)
    except ServerStartError as error:
        return f"did not start: {str(error).strip().splitlines()[-1][:200]}"
    code = server.process.returncode
    with contextlib.suppress(ValueError):
        if code < 0:
            return f"ended by {signal.Signals(-code).name}"
    return "well" if code == 0 else f"ended with code {code}"


if __name__ == "__main__":
    main()
