"""What a run of 20 outer steps on glyphs spends its time on: these steps, and what `innerloop train` does after them.

    python benchmarks/short_runs/run.py [maml protonet anil lstm-optimizer]

Trains each method as `innerloop train METHOD --data glyphs --iterations 20` does, in a process of its own with one
thread. Seconds of computing, in which the processor worked for the run, by phase: importing and reading data, outer
steps, validation (and saving the run), the final test, calibration, the report, and an export to a bundle. Writes
results.json, with the number of tasks that validation, test and calibration take.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from innerloop_learner.bundle import load_bundle
from innerloop_trainer.export import export_bundle
from innerloop_trainer.recipes import Recipe, make_recipe
from innerloop_trainer.runs.calibration import calibrate_run
from innerloop_trainer.runs.conduct import Conduct
from innerloop_trainer.runs.final_test import measure_on_test_split
from innerloop_trainer.runs.folder import RunFolder
from innerloop_trainer.runs.from_recipe import prepare_recipe
from innerloop_trainer.runs.report import report_run
from innerloop_trainer.runs.training import Report, Training

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine

RESULTS = Path(__file__).with_name("results.json")
STEPS = 20
METHODS = ("maml", "protonet", "anil", "lstm-optimizer")
CPU = torch.device("cpu")
TESTED = re.compile(r"(\d+) test episodes")


def main() -> None:
    """Measure each method and write results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=METHODS)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(phases(make_recipe({"method": arguments.only, "data": "glyphs", "iterations": STEPS}))))
        return
    results = json.loads(RESULTS.read_text())["results"] if RESULTS.exists() else {}
    for method in arguments.methods:
        results[method] = in_process(method)
        print(method, results[method], flush=True)
        RESULTS.write_text(json.dumps({"machine": describe_machine(), "results": results}, indent=1) + "\n")


def in_process(method: str) -> dict[str, dict[str, float]]:
    """The phases of a run in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--only", method]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, dict[str, float]] = json.loads(found.stdout.splitlines()[-1])
    return measured


def phases(recipe: Recipe) -> dict[str, dict[str, float]]:
    """Seconds of computing of each phase of a run, one after the other, as `innerloop train` does them, and tasks."""
    torch.set_num_threads(1)
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = RunFolder(Path(temporary) / "run")
        training = prepare_recipe(recipe, folder, CPU, conduct=Conduct(workers=1)).training
        seconds["start"] = computed()
        train(training, seconds)
        shape = replace(training.plan.validation, wrong_labels=0.0)
        with timed("test", seconds):
            tested = measure_on_test_split(training, shape, recipe.test_episodes)
        with timed("calibration", seconds):
            calibration = calibrate_run(training, recipe.calibration_episodes).calibration
        with timed("report", seconds):
            report_run(training, tested, shape)
        with timed("export", seconds):
            export_bundle(load_bundle(folder.bundle, CPU), Path(temporary) / "bundle")
    tasks = {"validation": training.plan.validation_episodes, "test": int(TESTED.search(tested.protocol)[1])}
    tasks["calibration"] = 0 if calibration is None else calibration.episodes * len(calibration.tasks)
    return {"seconds": seconds, "tasks": tasks}


def train(training: Training, seconds: dict[str, float]) -> None:
    """Train a run, and keep the seconds of its outer steps and of the one validation at its end.

    All steps but the last are timed, which validation follows at once, and the last is taken to be as long as they are.
    """
    start, after = computed(), list[float]()

    def note() -> bool:
        after.append(computed() - start)
        return False

    training.run(ignore, note)
    seconds["outer steps"] = after[-2] * STEPS / (STEPS - 1)
    seconds["validation"] = computed() - start - seconds["outer steps"]


def ignore(_: Report) -> None:
    """Hear of the progress of a run."""


@contextmanager
def timed(phase: str, seconds: dict[str, float]) -> Iterator[None]:
    """Keep the seconds of computing of a phase under its name."""
    start = computed()
    yield
    seconds[phase] = computed() - start


def computed() -> float:
    """Seconds that the processor has worked for this process and those it has waited for."""
    return sum(os.times()[:4])


if __name__ == "__main__":
    main()
