"""Second-order MAML by Innerloop and by the libraries that train it, on the same tasks, by turns in one run.

    python benchmarks/training/run.py [--device cpu|cuda] [--rounds 6] [--only NAME ...]

The network is Conv4-64 with max-pooling, whose norms take their statistics from the support set, as Innerloop trains
and serves it; the peers compute the same. Each side is a process of its own, with as many threads as there are cores.
Before a side is timed, its loss and meta-gradient of a batch are compared with float64. Then sides take outer steps by
turns, in another order in each round; a side that has used up its seconds rests. Where a library has several ways, the
first workload chooses the one that goes on. At last sides train from the same weights on the same tasks until they
reach an accuracy on unseen characters (glyphs, embedded). Peers are installed into an environment of their own, and
their programs are in peers/. Prints tables, and writes results.json after each workload, unless sides are left out.
What is there already is not measured again, so that a run can be interrupted; remove the file to measure all anew.

On a GPU, there are 32 and 128 tasks in an outer step, 20 rounds after some steps that are not timed, Innerloop with and
without the replay of CUDA graphs, and the results are in results-cuda.json.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from by_turns import Measuring
from comparing import compare, fastest_ways, markdown
from environment import make_environment, versions
from machine import describe_machine, results_file
from sides import LEARN2LEARN, SideSpec, all_sides, unpack_learn2learn
from tasks import GPU_WORKLOADS, WORKLOADS
from workload import Workload

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
GPU_REQUIREMENTS = Path(__file__).with_name("requirements-cuda.txt")
ROUNDS = {"cpu": 6, "cuda": 20}


def main() -> None:
    """Measure all sides and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, help="turns of each side on each workload")
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="sides with such a name's beginning")
    given = parser.parse_args()
    # Leaving by an exception is what stops the processes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    on_gpu, results_path = given.device == "cuda", results_file(__file__, given.device)
    rounds, workloads = given.rounds or ROUNDS[given.device], GPU_WORKLOADS if on_gpu else WORKLOADS
    requirements = GPU_REQUIREMENTS if on_gpu else REQUIREMENTS
    python = make_environment(requirements)
    unpack_learn2learn(python)
    chosen = tuple(name.lower() for name in given.only)
    sides = [side for side in all_sides(torch.get_num_threads(), given.device) if side.name.lower().startswith(chosen)]
    kept = given.only == [""] and results_path.is_file()
    results: dict[str, Any] = json.loads(results_path.read_text()) if kept else {"workloads": {}}
    peers = versions(python, requirements) | {"learn2learn": LEARN2LEARN.partition("==")[2]}
    for workload in workloads:
        if workload.name not in results["workloads"]:
            measured = _measured(workload, sides, python, rounds, races=workload is workloads[0])
            results["workloads"][workload.name] = {"peers": peers, **measured}
            if given.only == [""]:
                results_path.write_text(json.dumps(results, indent=2) + "\n")
        sides = fastest_ways(sides, results["workloads"][workload.name]["sides"])
    print(markdown(results))


def _measured(workload: Workload, sides: list[SideSpec], python: Path, rounds: int, *, races: bool) -> dict[str, Any]:
    """The figures of all sides on one workload, and those of the race, if there is to be one."""
    load_before = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="training-") as name, ExitStack() as stack:
        measuring = Measuring(workload, Path(name) / "workload")
        figures = {side.name: measuring.start(stack, side, python) for side in sides}
        measuring.take_turns(rounds, figures)
        racing = [side.name for side in fastest_ways(sides, figures) if side.counts]
        race = {"race": measuring.race(racing, figures)} if races else {}
    return {
        "machine": describe_machine(),
        "load": [load_before, os.getloadavg()],
        "sides": figures,
        "comparison": compare(figures),
        **race,
    }


if __name__ == "__main__":
    main()
