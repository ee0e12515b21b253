"""The options that say which server a command talks to, and how: the same for all commands that do."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from innerloop import TLS, Client
from innerloop.errors import InvalidArgumentError
from innerloop.priority import Priority

Server = Annotated[str, typer.Option("--server", envvar="INNERLOOP_SERVER", help="HOST:PORT of the server.")]
UseTls = Annotated[bool, typer.Option("--tls", help="Use TLS, and trust the authorities that the system trusts.")]
TlsRoots = Annotated[
    Path | None, typer.Option("--tls-roots", help="Use TLS, and trust the authorities in this PEM file.")
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
        timeout: seconds after which a request fails.
        priority: as for `Client`.
    """

    target: str
    tls: bool | TLS
    timeout: float
    priority: Priority

    def connect(self) -> Client:
        """A client of that server."""
        return Client(self.target, tls=self.tls, timeout=self.timeout, priority=self.priority)


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
    timeout: Timeout = 30.0,
    priority: Urgency = "normal",
) -> ServerAccess:
    if tls_roots is not None and not tls_roots.is_file():
        raise InvalidArgumentError(f"--tls-roots: there is no file {tls_roots}")
    return ServerAccess(server, TLS(root_certificates=tls_roots) if tls_roots else tls, timeout, priority)


_OPTIONS = inspect.signature(_access).parameters
"""Options that every such command takes, by name."""
