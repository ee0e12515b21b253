"""What a user can get wrong, told in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from innerloop_trainer.mistakes import MISTAKES


@contextmanager
def mistakes_as_messages() -> Iterator[None]:
    """Turn a mistake into a line on stderr and exit status 2; a defect keeps its traceback."""
    try:
        yield
    except MISTAKES as error:
        typer.secho(f"Error: {_text(error)}", fg="red", err=True)
        raise typer.Exit(2) from error


def _text(error: Exception) -> str:
    """The error's message without the numbers that operating systems count errors by."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)
