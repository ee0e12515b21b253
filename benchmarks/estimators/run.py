"""Estimators that do without backpropagation through the inner loop, each against what it stands in for.

    python benchmarks/estimators/run.py [es] [implicit] [pes] [reinforce --omniglot FOLDER]

`evolution.py`, `implicit.py`, `persistent.py` and `choices.py` beside it say what is measured. Writes results.json and
the figure in docs.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from choices import measure_choices
from evolution import measure_evolution
from implicit import measure_implicit
from machine import describe_machine
from persistent import measure_persistent

RESULTS = Path(__file__).with_name("results.json")
MEASURES = {
    "es": measure_evolution,
    "implicit": measure_implicit,
    "pes": measure_persistent,
    "reinforce": measure_choices,
}


def main() -> None:
    """Measure what was asked for, and write it beside what was measured before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("estimators", nargs="*", metavar="ESTIMATOR", help=f"of {', '.join(MEASURES)}; all by default")
    parser.add_argument("--omniglot", metavar="FOLDER", help="folder of Omniglot's zips, for reinforce")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="runs of reinforce at once")
    arguments = parser.parse_args()
    names = arguments.estimators or list(MEASURES)
    if "reinforce" in names and not arguments.omniglot:
        parser.error("reinforce is measured on Omniglot: say where it is with --omniglot FOLDER")
    torch.set_num_threads(1)
    for name in names:
        given = (arguments.omniglot, arguments.processes) if name == "reinforce" else ()
        measured = MEASURES[name](*given)
        results = json.loads(RESULTS.read_text())["results"] if RESULTS.is_file() else {}
        results[name] = {"machine": describe_machine(), **measured}
        RESULTS.write_text(json.dumps({"results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
