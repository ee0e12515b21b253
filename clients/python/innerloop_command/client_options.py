"""The options that say which server a command talks to, and how: the same for all commands that do."""

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from innerloop import TLS, Client
from innerloop.errors import InvalidArgumentError
from innerloop.priority import Priority

API_KEY_VARIABLE = "INNERLOOP_API_KEY"
"""Environment variable with an API key. No option takes one: a command line is seen by all users of a machine."""

Server = Annotated[str, typer.Option("--server", envvar="INNERLOOP_SERVER", help="HOST:PORT of the server.")]
UseTls = Annotated[bool, typer.Option("--tls", help="Use TLS, and trust the authorities that the system trusts.")]
TlsRoots = Annotated[
    Path | None, typer.Option("--tls-roots", help="Use TLS, and trust the authorities in this PEM file.")
]
ApiKeyFile = Annotated[
    Path | None,
    typer.Option(
        "--api-key-file",
        help=f"File that holds an API key alone. Without it, the variable {API_KEY_VARIABLE} may hold the key.",
    ),
]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds after which a request fails.")]
Urgency = Annotated[
    Priority, typer.Option("--priority", help="How urgent it is among your own requests; others are not affected.")
]


@dataclass(frozen=True)
class ServerAccess:
    """How a command reaches the server.

    Attributes:
        target: "host:port".
        tls: as for `Client`.
        api_key: as for `Client`.
        timeout: seconds after which a request fails.
        priority: as for `Client`.
    """

    target: str
    tls: bool | TLS
    api_key: str | None = field(repr=False)
    timeout: float
    priority: Priority

    def connect(self) -> Client:
        """A client of that server."""
        return Client(self.target, tls=self.tls, api_key=self.api_key, timeout=self.timeout, priority=self.priority)


def with_client_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that make up its keyword argument `access`."""

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        options = {name: given.pop(name) for name in _OPTIONS}
        command(**given, access=_access(**options))

    own = [parameter for name, parameter in inspect.signature(command).parameters.items() if name != "access"]
    parameters = [*own, *_OPTIONS.values()]
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


def _access(
    server: Server = "localhost:50051",
    tls: UseTls = False,
    tls_roots: TlsRoots = None,
    api_key_file: ApiKeyFile = None,
    timeout: Timeout = 30.0,
    priority: Urgency = "normal",
) -> ServerAccess:
    if tls_roots is not None and not tls_roots.is_file():
        raise InvalidArgumentError(f"--tls-roots: there is no file {tls_roots}")
    api_key = os.environ.get(API_KEY_VARIABLE) if api_key_file is None else _read_key(api_key_file)
    return ServerAccess(server, TLS(root_certificates=tls_roots) if tls_roots else tls, api_key, timeout, priority)


def _read_key(file: Path) -> str:
    try:
        return file.read_text().strip()
    except UnicodeDecodeError:
        raise InvalidArgumentError(f"--api-key-file: {file} holds no key") from None


_OPTIONS = inspect.signature(_access).parameters
"""Options that every such command takes, by name."""
