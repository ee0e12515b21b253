"""Reads the teachers of a run (`innerloop train --teacher`)."""

from collections.abc import Sequence
from pathlib import Path

import torch

from innerloop_learner.bundle import load_bundle
from innerloop_trainer.runs.folder import find_bundle
from innerloop_trainer.teaching import Teachers


def read_teachers(paths: Sequence[Path], device: torch.device) -> Teachers:
    """Read bundles, or the bundles of runs, onto the device on which the student is trained.

    Raises:
        BundleError, RunError: a bundle or run can't be used.
    """
    return Teachers([load_bundle(find_bundle(path), device) for path in paths])
