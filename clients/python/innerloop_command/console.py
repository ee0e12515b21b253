"""Consoles that show text as it is: labels and file names may hold anything."""

import os

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

FILE_WIDTH = 1000
"""Characters of a line where no terminal bounds it: each row of a table stands on one line."""


def make_console(*, stderr: bool = False) -> Console:
    """A console to which square brackets and `:smile:` are text like any other."""
    console = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = FILE_WIDTH
    return console


def make_progress() -> Progress:
    """A bar on standard error that goes away when it is done."""
    columns = TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn()
    return Progress(*columns, console=make_console(stderr=True), transient=True)


def print_line(text: str) -> None:
    """Print a text on standard output without folding it."""
    make_console().print(text, soft_wrap=True)


def print_error(message: str) -> None:
    """Say on standard error what went wrong or was left out."""
    make_console(stderr=True).print(message, soft_wrap=True)
