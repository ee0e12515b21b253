"""Lets one test exercise both clients: the synchronous one runs in threads, and is awaited like its twin."""

import asyncio
from collections.abc import Callable
from typing import Any

from innerloop import Adaptation, AsyncClient, Client


class InThreads:
    """A synchronous object whose methods can be awaited."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        return self._awaitable(value) if callable(value) else value

    def _awaitable(self, method: Callable[..., Any]) -> Any:
        async def call(*args: Any, **settings: Any) -> Any:
            result = await asyncio.to_thread(method, *args, **settings)
            return InThreads(result) if isinstance(result, Adaptation) else result

        return call


def connect(kind: str, address: str, **settings: Any) -> Any:
    """A client of one kind, with methods to be awaited."""
    return AsyncClient(address, **settings) if kind == "async" else InThreads(Client(address, **settings))


async def collect(source: Any) -> list[Any]:
    """All items of what either client's `list_adaptations` gives."""
    return [item async for item in source] if hasattr(source, "__aiter__") else list(await source)
