"""From what a user types to what the trainer takes."""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from innerloop_learner.manifest import MANIFEST, BundleError
from innerloop_trainer.config import ConfigError
from innerloop_trainer.run_folder import RunError, RunFolder


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is a GPU where there is one.

    Raises:
        ConfigError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", name)
    if match is None:
        raise ConfigError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N")
    if name != "cpu" and int(match[1] or 0) >= torch.cuda.device_count():
        raise ConfigError(f"there is no device {name} on this machine for PyTorch to use; use --device cpu")
    return torch.device(name)


def parse_settings(texts: Sequence[str] | None) -> dict[str, Any]:
    """NAME=VALUE texts as a mapping; values are JSON where they can be, plain text otherwise.

    Raises:
        ConfigError: a text is of another form, or a name comes twice.
    """
    settings: dict[str, Any] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ConfigError(f"settings are written NAME=VALUE, not {text!r}")
        if name in settings:
            raise ConfigError(f"{name} is set twice; leave one out")
        try:
            settings[name] = json.loads(value)
        except json.JSONDecodeError:
            settings[name] = value
    return settings


def find_bundle(path: Path) -> Path:
    """The bundle at `path`, or that of the run at `path`.

    Raises:
        BundleError: it is neither.
        RunError: the run has no bundle yet.
    """
    if (path / MANIFEST).is_file():
        return path
    run = RunFolder(path)
    if not run.exists:
        raise BundleError(f"{path} is neither a bundle nor a training run")
    if not run.bundle.is_dir():
        raise RunError(f"{path} has no bundle yet, since nothing was validated; train on with --resume")
    return run.bundle


def check_writable(file: Path) -> None:
    """Find out before long work whether a file can be written after it.

    Raises:
        ConfigError: its folder is missing, or it can't be written.
    """
    if not file.parent.is_dir():
        raise ConfigError(f"{file} can't be written: there is no folder {file.parent}")
    if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        raise ConfigError(f"{file} can't be written; name another file")
