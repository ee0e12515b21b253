"""What a user can get wrong, told in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from innerloop_learner.learner import TaskError
from innerloop_learner.manifest import BundleError
from innerloop_learner.registry import UnknownNameError
from innerloop_learner.settings import SettingsError
from innerloop_trainer.config import ConfigError
from innerloop_trainer.data import DataError
from innerloop_trainer.evaluation import EvaluationError
from innerloop_trainer.initial_parameters import InitialParametersError
from innerloop_trainer.run_folder import RunError
from innerloop_trainer.training import DivergedError

MISTAKES = (
    BundleError,
    ConfigError,
    DataError,
    DivergedError,
    EvaluationError,
    InitialParametersError,
    OSError,
    RunError,
    SettingsError,
    TaskError,
    UnknownNameError,
)
"""Errors whose message is for the user; anything else is a defect and keeps its traceback."""


@contextmanager
def mistakes_as_messages() -> Iterator[None]:
    """Turn such an error into a line on stderr and exit status 2."""
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
