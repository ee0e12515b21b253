"""Architecture search: in a space of which every network was trained, and in one of useful networks.

    python benchmarks/architecture_search/run.py PATH_OF_OMNIGLOT [table] [replay] [mixtures] [useful]

`every_network.py`, `replay.py`, `mixtures.py` and `useful.py` beside it say what is measured. `table` writes
table.json, which `replay` and `mixtures` read. Everything but `table` writes results.json.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from every_network import SEEDS, TRAINING, make_table
from machine import describe_machine
from mixtures import measure_mixtures
from replay import measure_replay
from useful import measure_useful

from innerloop_trainer.data import DataSource, load_source

TABLE, RESULTS = (Path(__file__).with_name(name) for name in ("table.json", "results.json"))
PARTS = ("table", "replay", "mixtures", "useful")


def main() -> None:
    """Measure what was asked for, and write it beside what was measured before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("omniglot", type=Path, help="folder with images_background.zip and images_evaluation.zip")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    arguments = parser.parse_args()
    name = f"omniglot:{arguments.omniglot}"
    source = load_source(name)
    for part in arguments.parts or PARTS:
        if part == "table":
            _write_table(source, name)
            continue
        results = json.loads(RESULTS.read_text())["results"] if RESULTS.is_file() else {}
        results[part] = {"machine": describe_machine(), **_measured(part, source, name)}
        RESULTS.write_text(json.dumps({"results": results}, indent=2) + "\n")


def _measured(part: str, source: DataSource, name: str) -> dict[str, Any]:
    if part == "useful":
        return measure_useful(source, name)
    table = json.loads(TABLE.read_text())
    return measure_replay(table) if part == "replay" else measure_mixtures(source, name, table)


def _write_table(source: DataSource, name: str) -> None:
    """Write the table, a line for each network."""
    lines = ",\n".join("    " + json.dumps(entry) for entry in make_table(source, name))
    about = json.dumps({"machine": describe_machine(), "training": TRAINING, "seeds": len(SEEDS)}, indent=2)
    TABLE.write_text(f'{about[:-2]},\n  "networks": [\n{lines}\n  ]\n}}\n')


if __name__ == "__main__":
    main()
