"""Gradient-based methods at 20 ways by how long they train: what separates them from their papers.

    python benchmarks/omniglot/budgets.py OMNIGLOT

Trains each method as run.py does for 20 ways, but for other numbers of outer steps, each with a whole course of its
learning rate, and measures all on the same 600 tasks of unseen characters (20-way 1-shot). `slope` is what twice the
training gains, in points, by a line through the logarithms of the odds; `tasks_for_paper` is where this line meets the
figure of the paper. A line through two or three points says in which order of magnitude that lies, no more.
Runs are kept in runs/omniglot-budgets/. Writes budgets.json.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from innerloop_trainer.data import EpisodeShape

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine
from recipes import RECIPES, STRIDED
from training import evaluated, train

RUNS = Path(__file__).resolve().parent.parent.parent / "runs" / "omniglot-budgets"
RESULTS = Path(__file__).with_name("budgets.json")
STEPS = {"anil": (500, 1000, 2000), "maml": (500, 1000)}
SHAPE, EPISODES, META_BATCH = EpisodeShape(20, 1, 5), 600, 4
PAPER_TASKS = 60_000 * 16
"""Training tasks of MAML at 20 ways (Finn et al. 2017, appendix A.1)."""


def main() -> None:
    """Train, measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("omniglot", type=Path, help="folder with images_background.zip and images_evaluation.zip")
    data = f"omniglot:{parser.parse_args().omniglot}"
    results = {}
    for method, budgets in STEPS.items():
        figures = [{"tasks": META_BATCH * steps, **_measured(method, steps, data)} for steps in budgets]
        paper = RECIPES[method].paper[2]
        assert paper is not None
        results[method] = {"budgets": figures, "paper": paper, **_extrapolated(figures, paper)}
        print(method, json.dumps(results[method]), flush=True)
    content = {"machine": describe_machine(), "paper_tasks": PAPER_TASKS, "results": results}
    RESULTS.write_text(json.dumps(content, indent=2) + "\n")


def _measured(method: str, steps: int, data: str) -> dict[str, float]:
    """Accuracies in percent of a method after so many outer steps, by protocol."""
    twenty = RECIPES[method].twenty
    assert twenty is not None
    options = list(twenty)
    options[options.index("--iterations") + 1] = str(steps)
    folder = RUNS / f"{method}-{steps}"
    own = ["--data", data, "--ways", "20", *options, *STRIDED, "--validate-every", str(steps)]
    train(folder, method, [*own, "--test-episodes", "2", "--calibration-episodes", "0", "--no-report"])
    return {
        protocol: 100 * evaluated(folder, data, SHAPE, EPISODES, protocol, folder / f"{protocol}.json")["value"]
        for protocol in ("inductive", "transductive")
    }


def _extrapolated(figures: list[dict[str, Any]], paper: float) -> dict[str, float]:
    """What twice the training gains at the largest budget, in points, and the tasks at which the line meets the paper.

    Papers let queries normalise each other, so the line is that of the transductive figures.
    """
    doublings = np.log2([each["tasks"] for each in figures])
    odds = [_log_odds(each["transductive"]) for each in figures]
    slope, start = np.polyfit(doublings, odds, 1)
    last = figures[-1]["transductive"]
    more = 100 / (1 + math.exp(-_log_odds(last) - slope))
    return {"slope": more - last, "tasks_for_paper": 2 ** float((_log_odds(paper) - start) / slope)}


def _log_odds(percent: float) -> float:
    return math.log(percent / (100 - percent))


if __name__ == "__main__":
    main()
