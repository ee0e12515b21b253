"""The engine process, as a front end asks it."""

import asyncio
import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from innerloop_server.domain.answers import Answers
from innerloop_server.domain.deadline import Deadline
from innerloop_server.domain.errors import FieldViolation, InvalidRequestError, OverloadedError
from innerloop_server.domain.tasks import Array
from innerloop_server.frontend.failures import error_of
from innerloop_server.frontend.messages import (
    ArrayHere,
    Cancel,
    Failed,
    Operation,
    Released,
    Reply,
    Request,
    Room,
    SentAnswers,
)
from innerloop_server.ipc.allocator import Allocator, Block, aligned
from innerloop_server.ipc.arrays import ArrayAt, array_in, end_of, lay_out
from innerloop_server.ipc.link import Link
from innerloop_server.ipc.segment import Segment

R = TypeVar("R")

LARGE = 1 << 20
"""Arrays of at least this many bytes are copied in a thread, so that the event loop is not held up."""
SMALL_ANSWERS = 4096
"""Answers of up to this many bytes travel in the message itself, and not in shared memory."""
FULL_RETRY_SECONDS = 0.2
"""Seconds after which a request is told to come back that the segment had no room for: others may be answered by then.
"""
RELEASE_SECONDS = 0.05
"""Seconds after an answer by which the engine process has released the request's block, unless it is very busy."""


class Parcel(NamedTuple):
    """A block of the segment with the arrays of one request.

    Attributes:
        block: that they lie in.
        arrays: where each array lies, by field of the request.
        room: where the answers may be written, if there is room for them.
    """

    block: Block
    arrays: Mapping[str, ArrayAt]
    room: Room | None


@dataclass(slots=True)
class _Asked(Generic[R]):
    """A request that the engine process has not finished with."""

    future: "asyncio.Future[R]"
    read: Callable[[msgspec.Raw], R]
    block: Block | None


class EngineClient:
    """Asks the engine process, and keeps a request's block until that process has let go of it.

    Args:
        link: to the engine process.
        segment: shared with it; only this front end hands out its blocks.
    """

    def __init__(self, link: Link[Any], segment: Segment) -> None:
        self._link = link
        self._segment = segment
        self._allocator = Allocator(segment.size)
        self._loop = asyncio.get_running_loop()
        self._copiers = ThreadPoolExecutor(2, thread_name_prefix="copier")
        self._asked: dict[int, _Asked[Any]] = {}
        self._last_number = 0
        self._answered = 0  # answered requests whose blocks are about to be released
        self._freed = asyncio.Event()

    async def pack(self, arrays: Mapping[str, Array], answer_bytes: int = 0) -> Parcel:
        """Copy arrays into the segment: the only copy of them before the device's.

        Args:
            arrays: by the field of the request that they come from.
            answer_bytes: most bytes of the answers.

        Raises:
            InvalidRequestError: they are larger than the segment.
            OverloadedError: there is no room now.
        """
        places = dict(zip(arrays, lay_out(arrays.values()), strict=True))
        size = aligned(end_of(places.values()))
        give_up = self._loop.time() + RELEASE_SECONDS
        while (found := self._find_room(size, answer_bytes)) is None:
            if size > self._allocator.size or not await self._release_before(give_up):
                raise self._no_room(arrays, size)
        block, room = found
        memory = self._segment.block(block)
        copies = [(array_in(memory, places[field]), array) for field, array in arrays.items()]
        if size < LARGE:
            _copy(copies)
        else:
            copying = self._loop.run_in_executor(self._copiers, _copy, copies)
            try:
                await asyncio.shield(copying)
            except asyncio.CancelledError:
                copying.add_done_callback(lambda _: self._allocator.free(block))  # a thread still writes to it
                raise
        return Parcel(block, places, room)

    async def ask(self, operation: Operation, read: Callable[[msgspec.Raw], R], deadline: Deadline | None = None) -> R:
        """Ask for something without arrays; returns the answer as `read` decodes it, or raises the engine's error."""
        return await self._ask(operation, read, deadline, None)

    async def ask_about(
        self,
        parcel: Parcel,
        operation: Operation,
        read: Callable[[msgspec.Raw, NDArray[np.uint8]], R],
        deadline: Deadline,
    ) -> R:
        """Ask for something whose arrays lie in a parcel, which can't be used again.

        `read` decodes the answer, given the parcel's memory; it must copy what it keeps of that memory.
        """
        memory = self._segment.block(parcel.block)
        return await self._ask(operation, lambda result: read(result, memory), deadline, parcel.block)

    def receive(self, message: Reply | Failed | Released) -> None:
        """Take what the engine process says of a request."""
        asked = self._asked[message.number]
        if isinstance(message, Released):
            self._answered -= 1
        else:
            _settle(asked, message)
            if asked.block is not None:
                self._answered += 1
                return
        del self._asked[message.number]
        if asked.block is not None:
            self._allocator.free(asked.block)
            self._freed.set()

    async def _ask(
        self,
        operation: Operation,
        read: Callable[[msgspec.Raw], R],
        deadline: Deadline | None,
        block: Block | None,
    ) -> R:
        self._last_number += 1
        number = self._last_number
        future: asyncio.Future[R] = self._loop.create_future()
        self._asked[number] = _Asked(future, read, block)
        until = math.inf if deadline is None else deadline.at
        self._link.send(Request(number, operation, until, block))
        try:
            return await future
        except asyncio.CancelledError:
            self._link.send(Cancel(number))
            raise

    def _find_room(self, size: int, answer_bytes: int) -> tuple[Block, Room | None] | None:
        """A block for arrays of so many bytes, and for answers behind them if they are too large for a message."""
        if answer_bytes > SMALL_ANSWERS and (block := self._allocator.allocate(size + answer_bytes)):
            return block, Room(size, answer_bytes)
        block = self._allocator.allocate(size)
        return None if block is None else (block, None)

    async def _release_before(self, moment: float) -> bool:
        """Wait until another block is free; false if none is about to be.

        An answer arrives a little before its block is free. A caller that sends its next request at once must not find
        the segment full.
        """
        if not self._answered:
            return False
        self._freed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(moment):
                return await self._freed.wait()
        return False

    def _no_room(self, arrays: Mapping[str, Array], size: int) -> InvalidRequestError | OverloadedError:
        if size <= self._allocator.size:
            return OverloadedError(FULL_RETRY_SECONDS)
        largest = max(arrays, key=lambda field: arrays[field].nbytes)
        problem = f"takes {arrays[largest].nbytes} bytes, and the server has {self._allocator.size} for requests"
        return InvalidRequestError([FieldViolation(largest, f"{problem}; send fewer at a time")])


def read_answers(sent: SentAnswers, memory: NDArray[np.uint8]) -> Answers:
    """Answers in memory of their own."""

    def read(place: ArrayAt | ArrayHere | None) -> NDArray[np.float32] | None:
        if place is None:
            return None
        if isinstance(place, ArrayHere):
            return np.frombuffer(place.data, np.float32).reshape(place.shape)
        return array_in(memory, place).copy()

    return Answers(read(sent.logits), read(sent.probabilities), read(sent.values), calibration=sent.calibration)


def _settle(asked: _Asked[Any], message: Reply | Failed) -> None:
    if asked.future.done():
        return  # the caller has left
    if isinstance(message, Failed):
        asked.future.set_exception(error_of(message))
    else:
        asked.future.set_result(asked.read(message.result))


def _copy(copies: list[tuple[Array, Array]]) -> None:
    for target, source in copies:
        np.copyto(target, source)
