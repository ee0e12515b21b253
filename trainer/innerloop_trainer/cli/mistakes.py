"""Turns errors that a user can mend into messages of one line."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from innerloop_trainer.mistakes import MISTAKES
from innerloop_trainer.parallel import ProcessError


@contextmanager
def mistakes_as_messages() -> Iterator[None]:
    """Turn a user's mistake into a line on stderr and exit status 2; a defect of ours keeps its traceback.

    Of several processes that fail together, the leading one alone tells.
    """
    try:
        yield
    except ProcessError as error:
        if error.leads:
            typer.secho(f"Error: {error}", fg="red", err=True)
        raise typer.Exit(2) from error
    except MISTAKES as error:
        typer.secho(f"Error: {_text(error)}", fg="red", err=True)
        raise typer.Exit(2) from error


def _text(error: Exception) -> str:
    """The error's message without the operating system's error number."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)
