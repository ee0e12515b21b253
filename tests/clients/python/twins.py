"""Lets one test exercise both clients: the synchronous one runs in threads, and is awaited like its twin."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing, closing
from itertools import islice
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
    """All items of what either client's `list_adaptations` and `predict_stream` give."""
    if hasattr(source, "__aiter__"):
        return [item async for item in source]
    items = await source
    return await asyncio.to_thread(list, items)


async def first(count: int, source: Any) -> list[Any]:
    """Only the first items; whoever gives them is told that no more are wanted."""
    if hasattr(source, "__aiter__"):
        async with aclosing(source):
            return [await anext(source) for _ in range(count)]
    with closing(await source) as items:
        return await asyncio.to_thread(lambda: list(islice(items, count)))
