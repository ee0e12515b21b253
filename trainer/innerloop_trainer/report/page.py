"""The page of a report, and the file that holds it."""

import os
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from innerloop_learner.disk import replace_file
from innerloop_trainer.config import ConfigError

TEMPLATE = Path(__file__).with_name("page.html")

MARK = '<meta name="generator" content="Innerloop report">'
"""Line of every report, by which one is told from a page that somebody else wrote."""

MARK_WITHIN = 1024
"""Number of bytes at the beginning of a report that hold the mark."""


def render(**values: Any) -> str:
    """Fill in the template. Everything is escaped, since names of classes and texts may be anything."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(mark=MARK, **values)


def check_report_file(file: Path) -> None:
    """Find out before long work whether a report can be written to a file after it.

    Raises:
        ConfigError: its folder is missing, it can't be written, or it is no report.
    """
    if not file.parent.is_dir():
        raise ConfigError(f"{file} can't be written: there is no folder {file.parent}")
    if file.is_dir() or not os.access(file.parent, os.W_OK):
        raise ConfigError(f"{file} can't be written; name another file")
    if file.exists():
        with file.open("rb") as stream:
            head = stream.read(MARK_WITHIN)
        if head and MARK.encode() not in head:
            raise ConfigError(f"{file} is there and no report; name another file or move it away")


def write_report(file: Path, page: str) -> None:
    """Write a report, whole or not at all; a report that is there is replaced.

    Raises:
        OSError: it can't be written.
    """
    replace_file(file.resolve(), page.encode())
