"""Commands that are imported when they are used: torch takes seconds to import, and may not be installed."""

from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

_ASKED_FOR = "innerloop.command"


class Source(NamedTuple):
    """Where a command comes from.

    Attributes:
        module: has the command in its `app`, a `typer.Typer`.
        extra: of the distribution, that the module needs; empty for what the client alone can do.
        help: one line for the list of commands.
    """

    module: str
    extra: str
    help: str


class LazyGroup(TyperGroup):
    """A group that knows the names of its commands at once, and their content when one is used."""

    sources: dict[str, Source]

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, source in self.sources.items():
            self.add_command(TyperCommand(name, help=source.help))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that `args` begin with, imported."""
        name, _, rest = super().resolve_command(ctx, args)
        if name is None:
            return None, None, rest
        ctx.meta[_ASKED_FOR] = name
        return name, _load(name, self.sources[name]), rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command; where a package of its extra is missing, say which extra to install and exit with 2."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            name = ctx.meta[_ASKED_FOR]
            extra, package = self.sources[name].extra, (error.name or "").partition(".")[0]
            if not extra or package.startswith("innerloop"):
                raise
            typer.echo(f'innerloop {name} needs {package}: pip install "innerloop[{extra}]"', err=True)
            raise typer.Exit(2) from error


def _load(name: str, source: Source) -> Any:
    command = get_command(import_module(source.module).app)
    return command.commands[name] if isinstance(command, TyperGroup) else command
