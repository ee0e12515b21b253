"""A scripted server, clients of both kinds to it, and the command line."""

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
from scripted_server import ScriptedServer, running
from twins import connect

from innerloop_command import main


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with running() as scripted:
        yield scripted


@pytest_asyncio.fixture(params=["sync", "async"])
async def make_client(request: pytest.FixtureRequest, server: ScriptedServer) -> AsyncIterator[Callable[..., Any]]:
    """Makes clients of the server, all of one kind."""
    clients = []

    def make(**settings: Any) -> Any:
        clients.append(connect(request.param, settings.pop("address", server.address), **settings))
        return clients[-1]

    yield make
    for client in clients:
        await client.close()


@pytest_asyncio.fixture
async def client(make_client: Callable[..., Any]) -> Any:
    """A client with the default settings."""
    return make_client()


@pytest.fixture
def run(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[Any, str, str]]:
    """Runs the command as the console script does; returns exit code, stdout, stderr."""
    monkeypatch.setenv("INNERLOOP_SERVER", server.address)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: Any) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["innerloop", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            main()
        captured = capsys.readouterr()
        return exit_info.value.code, captured.out, captured.err

    return call
