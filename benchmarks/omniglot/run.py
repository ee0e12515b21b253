"""Accuracy on Omniglot: trains every method, measures it offline, and once more through a running server.

    python benchmarks/omniglot/run.py PATH_OF_OMNIGLOT [--methods maml protonet ...] [--jobs 3]

Runs are kept in runs/omniglot/ and resumed, so that interrupting costs nothing; finished ones are not trained again.
Runs train on tasks of one shot where recipes.py says nothing else; figures are of unseen characters of the random
split, 600 episodes each, 15 queries a class for 5 ways and 5 for 20 ways. Writes results.json, and the same as a table,
results.md.
"""

import argparse
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from innerloop import Client
from innerloop_command.server_process import ServerProcess
from innerloop_trainer.data import ClassExamples, EpisodeShape, load_source
from innerloop_trainer.runs.folder import RunFolder
from innerloop_trainer.runs.log import read_rows

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine
from recipes import RECIPES, STRIDED
from served import served_accuracies
from table import markdown
from training import evaluated, run_innerloop, train

ROOT = Path(__file__).resolve().parent.parent.parent
RUNS = ROOT / "runs" / "omniglot"
MODELS = ROOT / "runs" / "omniglot-models"
"""The 5-way bundles, as a server takes them; the other benchmarks use them too."""

RESULTS = Path(__file__).with_name("results.json")
TABLE = Path(__file__).with_name("results.md")
EPISODES = 600
SETTINGS = {"5w1s": EpisodeShape(5, 1, 15), "5w5s": EpisodeShape(5, 5, 15), "20w1s": EpisodeShape(20, 1, 5)}
SETTINGS["20w5s"] = EpisodeShape(20, 5, 5)
SERVED = "5w1s"


@dataclass(frozen=True)
class Run:
    """One training run of a method.

    Attributes:
        method: registered name.
        ways, shots: it trains for.
        settings: it is measured on.
    """

    method: str
    ways: int
    shots: int
    settings: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return RUNS / f"{self.method}-{self.ways}w{'' if self.shots == 1 else f'{self.shots}s'}"

    @property
    def start(self) -> Path | None:
        """Folder of the run that it starts from, if there is one."""
        if self.shots != 1:
            return RUNS / f"{self.method}-{self.ways}w"
        return RUNS / f"{self.method}-5w" if RECIPES[self.method].continued and self.ways != 5 else None

    @property
    def options(self) -> list[str]:
        """Of `innerloop train`."""
        recipe = RECIPES[self.method]
        if self.shots != 1 and recipe.five_shots is not None:
            own = recipe.five_shots[self.ways != 5]
        else:
            own = recipe.five if self.ways == 5 or recipe.twenty is None else recipe.twenty
        every = "1000" if self.shots == 1 else "200"
        return ["--ways", str(self.ways), "--shots", str(self.shots), *own, *STRIDED, "--validate-every", every]


def main() -> None:
    """Train, evaluate, serve, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("omniglot", type=Path, help="folder with images_background.zip and images_evaluation.zip")
    parser.add_argument("--methods", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 1) - 1), help="runs at the same time")
    arguments = parser.parse_args()
    data = f"omniglot:{arguments.omniglot}"
    runs, measured = [], []
    with ThreadPoolExecutor(arguments.jobs) as pool:
        # One after the other: later ones start from earlier ones, and interrupting leaves something of every method.
        for ways, shots in ((5, 1), (20, 1), (5, 5), (20, 5)):
            every = [run for method in arguments.methods for run in _runs(method)]
            these = [run for run in every if (run.ways, run.shots) == (ways, shots)]
            runs += these
            measured += pool.map(lambda run: _measure(run, data), these)
    results = json.loads(RESULTS.read_text())["results"] if RESULTS.is_file() else {}
    for run, figures in zip(runs, measured, strict=True):
        if (run.ways, run.shots) == (5, 1):
            results[run.method] = {"paper": RECIPES[run.method].reported, "runs": {}, "settings": {}}
        results[run.method]["runs"][f"{run.ways}w{run.shots}s"] = figures.pop("run")
        results[run.method]["settings"] |= figures
    for method, accuracy in _served(arguments.methods, data).items():
        results[method]["served"] = accuracy
    results = {method: results[method] for method in RECIPES if method in results}
    machine = describe_machine()
    RESULTS.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")
    TABLE.write_text(markdown(results, machine))


def _runs(method: str) -> list[Run]:
    if RECIPES[method].five_shots is not None:
        return [Run(method, ways, shots, (f"{ways}w{shots}s",)) for ways in (5, 20) for shots in (1, 5)]
    if RECIPES[method].twenty is None:
        return [Run(method, 5, 1, tuple(SETTINGS))]
    return [Run(method, ways, 1, (f"{ways}w1s", f"{ways}w5s")) for ways in (5, 20)]


def _measure(run: Run, data: str) -> dict[str, Any]:
    """Train with `innerloop train`, measure with `innerloop evaluate`."""
    train(run.folder, run.method, ["--data", data, "--test-episodes", "2", *run.options], run.start)
    trained = RunFolder(run.folder)
    row = read_rows(trained.log)[-1]
    figures: dict[str, Any] = {
        "run": {
            "minutes": row.seconds / 60,
            "threads": 1,
            "outer_steps": row.iteration,
            "seed": trained.load_config().seed,
            "options": run.options,
            "starts_from": run.start.name if run.start else None,
        }
    }
    for setting in run.settings:
        figures[setting] = {"inductive": _evaluate(run, data, setting, "inductive")}
        if RECIPES[run.method].transductive:
            figures[setting]["transductive"] = _evaluate(run, data, setting, "transductive")
    return figures


def _evaluate(run: Run, data: str, setting: str, protocol: str) -> dict[str, float]:
    """Accuracy of a run, kept beside it."""
    file = run.folder / f"{setting}-{protocol}.json"
    evaluation = evaluated(run.folder, data, SETTINGS[setting], EPISODES, protocol, file)
    return {"accuracy": evaluation["value"], "confidence_interval": evaluation["confidence_interval"]}


def _served(methods: list[str], data: str) -> dict[str, float]:
    """Accuracy over the same episodes, as uint8 images through a server and the SDK."""
    source = load_source(data)
    if not isinstance(source.test, ClassExamples):
        raise TypeError("Omniglot consists of images")
    for method in methods:
        run_innerloop("export", str(RUNS / f"{method}-5w"), "--out", str(MODELS / method))
    served = {}
    with ServerProcess(MODELS) as server, Client(server.target, timeout=60) as client:
        for method in methods:
            start = time.perf_counter()
            served[method] = float(served_accuracies(client, method, source.test, SETTINGS[SERVED], EPISODES).mean())
            print(f"{method}: {served[method]:.2%} through the server, {time.perf_counter() - start:.0f} s", flush=True)
    return served


if __name__ == "__main__":
    main()
