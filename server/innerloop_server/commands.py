"""`innerloop serve` and `innerloop key`."""

import inspect
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from pydantic import ByteSize
from rich.console import Console

from innerloop_server.settings import ConfigurationError, ServerSettings, load_settings

SPINS = "10000"
"""Rounds that an idle OpenMP thread spins before it sleeps: about ten microseconds."""

SWITCH_SECONDS = 0.0005
"""Seconds after which a thread that holds the interpreter lets others run. With Python's default of 5 ms, a lane that
takes a batch or returns results would wait that long for the event loop, several times per batch."""

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Serve models that learn from a handful of examples."""


def serve(config: Path | None = None, **flags: Any) -> None:
    """Serve the bundles of a folder over gRPC.

    Every option can also be set by an environment variable (INNERLOOP_PORT for --port) or a key of a TOML file (port).
    Flags come first, then the environment, then the file.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        settings = load_settings(given, config)
        _run(settings)
    except ConfigurationError as error:
        for line in str(error).splitlines():
            Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False).print(
                f"innerloop serve: {line}"
            )
        raise typer.Exit(2) from error


def _run(settings: ServerSettings) -> None:
    from innerloop_server.observability.logs import configure_logging, open_standard_descriptors

    open_standard_descriptors()
    # gRPC's own log lines would stand between ours; what they tell of errors comes back as exceptions.
    # Must be set before gRPC is imported, which `innerloop_command` sees to for `innerloop serve`.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Should anything fork this process, gRPC's own handlers would close what its threads wait on. Nothing here uses
    # gRPC in a fork: workers and front ends are programs of their own, which are started without one.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    # PyTorch's threads wait for each other by spinning. For as long as they do by default, a computation on a machine
    # that has other work to do takes a hundred times as long; without, every small operation pays for waking them up.
    # Must be set before PyTorch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    # Imported late: the command's help and a refused configuration need not wait for what computes.
    import asyncio

    from prometheus_client import disable_created_metrics

    from innerloop_learner.host_memory import keep_freed_memory
    from innerloop_server.make_engine import make_engine
    from innerloop_server.server import run_server

    disable_created_metrics()  # type: ignore[no-untyped-call]
    keep_freed_memory()
    sys.setswitchinterval(SWITCH_SECONDS)
    configure_logging(settings.log_level, settings.log_format)
    engine = make_engine(settings)
    clean = asyncio.run(run_server(settings, engine))
    # Threads may still be loading or computing: the interpreter's own way out waits for the ones and, when the others
    # are inside PyTorch, crashes.
    os._exit(0 if clean else 1)


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option per setting, so that settings are described in one place only."""
    config = Annotated[Path | None, typer.Option(help="TOML file with settings.", envvar="INNERLOOP_CONFIG")]
    parameters = [_parameter("config", config)]
    for name, field in ServerSettings.model_fields.items():
        kinds = [kind for kind in get_args(field.annotation) or (field.annotation,) if kind is not type(None)]
        kind = kinds[0] if kinds[0] in (bool, int, float, Path) else str
        told = field.default_factory is not None or field.default is None  # then its description tells it
        default = "" if told else f" (default: {_shown(field.default)})"
        option = typer.Option(help=f"{field.description}{default}", show_default=False)
        parameters.append(_parameter(name, Annotated[kind | None, option]))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _shown(default: Any) -> str:
    return default.human_readable() if isinstance(default, ByteSize) else str(default)


app.command()(_with_options(serve))


@app.command()
def key(
    owner: Annotated[str, typer.Argument(help="Whom the adaptations of its callers belong to.")],
    scopes: Annotated[
        str, typer.Option(help="What its callers may do, with commas between: predict, adapt, admin.")
    ] = "predict,adapt",
    days: Annotated[int | None, typer.Option(min=1, max=36_500, help="Days until it expires. [default: never]")] = None,
    file: Annotated[
        Path | None, typer.Option(help="File of --api-keys to add its entry to; nothing that is there changes.")
    ] = None,
) -> None:
    """Make an API key for an owner, who may have several.

    The key is printed once and kept nowhere. Its entry, which the server needs, holds only its SHA-256, and is printed
    below the key unless it goes to a file.
    """
    from innerloop_server.domain.callers import Scope
    from innerloop_server.identity.followed_file import UnusableFileError
    from innerloop_server.identity.new_key import append_entry, new_key

    try:
        wanted = [Scope(word.strip()) for word in scopes.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"{error}; there are {', '.join(Scope)}", param_hint="--scopes") from error
    expires = None if days is None else datetime.now(UTC) + timedelta(days=days)
    try:
        made = new_key(owner, wanted, expires)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="OWNER") from error
    if file is not None:
        try:
            append_entry(file, made.entry)
        except (UnusableFileError, OSError) as error:
            problem = f"can't use {file}: {error.strerror}" if isinstance(error, OSError) else str(error)
            raise typer.BadParameter(problem, param_hint="--file") from error
    typer.echo(made.key)
    if file is None:
        typer.echo(f"\n{made.entry}", nl=False)
