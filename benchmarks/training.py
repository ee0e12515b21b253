"""Trains the models that benchmarks measure, with the `innerloop` command."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

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
