"""Trains the models that benchmarks measure, with the `innerloop` command."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from innerloop_trainer.data import EpisodeShape
from innerloop_trainer.runs.folder import RunFolder
from innerloop_trainer.runs.log import read_rows


def run_innerloop(*arguments: str) -> None:
    """Run the command in one thread: small networks gain little from more, and several runs go side by side."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "innerloop_command", *arguments], check=True, env=environment)


def train(folder: Path, method: str, options: Sequence[str], start: Path | None = None) -> None:
    """Train a run, or go on with it where it was interrupted; a finished one stays as it is.

    Args:
        folder: of the run.
        method: registered name.
        options: of `innerloop train`, without METHOD and --out.
        start: folder of the run whose parameters it starts from, if there is one.
    """
    run = RunFolder(folder)
    command = ["train", method, "--out", str(folder), *options]
    if not run.exists:
        run_innerloop(*command, *(["--init", str(start)] if start else []))
    elif not _finished(run):
        run_innerloop(*command, "--resume")


def _finished(run: RunFolder) -> bool:
    rows = read_rows(run.log)
    return bool(rows) and rows[-1].iteration == run.load_config().iterations


def evaluated(run: Path, data: str, shape: EpisodeShape, episodes: int, protocol: str, file: Path) -> dict[str, Any]:
    """What `innerloop evaluate` finds of a run, kept in a JSON file; what is kept already is not measured again."""
    if not file.is_file():
        run_innerloop(
            "evaluate", str(run), "--data", data, "--ways", str(shape.ways), "--shots", str(shape.shots),
            "--queries", str(shape.queries), "--episodes", str(episodes), "--protocol", protocol, "--json", str(file),
        )  # fmt: skip
    evaluation: dict[str, Any] = json.loads(file.read_text())
    return evaluation
