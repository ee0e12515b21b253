"""JSON files of results, which replace earlier results of the same kind and nothing else."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from innerloop_learner.disk import replace_file
from innerloop_trainer.config import ConfigError


def check_results_file(file: Path, keys: Iterable[str]) -> None:
    """Find out before long work whether results can be written to a file after it.

    Args:
        file: to be written.
        keys: that tell results of this kind from any other file.

    Raises:
        ConfigError: its folder is missing, it can't be written, or it is a file of another kind.
    """
    if not file.parent.is_dir():
        raise ConfigError(f"{file} can't be written: there is no folder {file.parent}")
    if file.is_dir() or not os.access(file if _is_device(file) else file.parent, os.W_OK):
        raise ConfigError(f"{file} can't be written; name another file")
    if file.is_file() and file.stat().st_size and not has_results(file, keys):
        raise ConfigError(f"{file} holds something else than such results; name another file or move it away")


def has_results(file: Path, keys: Iterable[str]) -> bool:
    """Whether a file is a JSON object with all of these keys."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.keys() >= set(keys)


def write_results(file: Path, results: dict[str, Any]) -> None:
    """Write results as JSON, whole or not at all.

    Raises:
        OSError: it can't be written; what was there still is.
    """
    content = json.dumps(results, indent=2) + "\n"
    if _is_device(file):
        file.write_text(content)
    else:
        replace_file(file.resolve(), content.encode())


def _is_device(file: Path) -> bool:
    """Whether it is a pipe or a device, /dev/stdout for example, which is written to and never replaced."""
    return file.exists() and not file.is_file()
