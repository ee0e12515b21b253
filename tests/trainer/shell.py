"""The command line, called in this process."""

from typing import NamedTuple

from typer.testing import CliRunner

from innerloop_command.app import app


class Answer(NamedTuple):
    """What a command left behind."""

    status: int
    output: str
    error: str


def innerloop(*arguments: object) -> Answer:
    """Run a command; a defect, anything but an exit, is raised as it is."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    return Answer(result.exit_code, result.stdout, result.stderr)


def mistake(*arguments: object) -> str:
    """Run a command that a user got wrong: it says why in one line and exits with 2."""
    status, _, error = innerloop(*arguments)
    assert status == 2
    assert error.startswith("Error: ")
    assert error.count("\n") == 1
    return error.removeprefix("Error: ").strip()


def readable(output: str) -> bool:
    """Whether nothing was cut off in a terminal of 80 columns."""
    return "…" not in output and max(map(len, output.splitlines())) <= 80
