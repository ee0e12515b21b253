"""A scripted server, and clients of both kinds to it."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
from scripted_server import ScriptedServer, running
from twins import connect


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
