"""Computations that several callers may ask for while the first of them still waits."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from innerloop_server.domain.deadline import Deadline
from innerloop_server.domain.errors import FieldViolation, InvalidRequestError

R = TypeVar("R")


@dataclass(eq=False, slots=True)
class Flight(Generic[R]):
    """One computation that several callers may wait for.

    Attributes:
        fingerprint: of the request's content.
        deadline: the latest of its callers.
        task: the computation; it outlives any one caller.
        waiting: callers that still wait.
    """

    fingerprint: bytes
    deadline: Deadline
    task: "asyncio.Task[R]"
    waiting: int = 0


class Flights(Generic[R]):
    """Makes equal requests share one computation: repeating a request never adapts twice."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, Flight[R]] = {}

    async def join(
        self,
        key: Hashable,
        fingerprint: bytes,
        deadline: Deadline,
        start: Callable[[Deadline], Awaitable[R]],
    ) -> R:
        """Wait for the computation of `key`, starting it when it is not under way.

        A caller that is cancelled leaves the others their answer; the last one to leave ends the computation.

        Args:
            key: names the request.
            fingerprint: of its content.
            deadline: of this caller.
            start: makes the computation, given the deadline that all callers share.

        Raises:
            InvalidRequestError: a request of this id but another content is under way.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = self._take_off(key, fingerprint, deadline, start)
        check_fingerprint(flight.fingerprint, fingerprint)
        flight.deadline.extend(deadline)
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                self._flights.pop(key)
                flight.task.cancel()

    def _take_off(
        self,
        key: Hashable,
        fingerprint: bytes,
        deadline: Deadline,
        start: Callable[[Deadline], Awaitable[R]],
    ) -> Flight[R]:
        async def run() -> R:
            return await start(deadline)

        flight = Flight(fingerprint, deadline, asyncio.create_task(run()))
        self._flights[key] = flight

        def land(task: "asyncio.Task[R]") -> None:
            if self._flights.get(key) is flight:
                del self._flights[key]
            if not task.cancelled():
                task.exception()  # retrieved, so that asyncio doesn't warn of an error whose callers have all left

        flight.task.add_done_callback(land)
        return flight


def check_fingerprint(first: bytes, now: bytes) -> None:
    """Refuse a request id that is used again for something else."""
    if first != now:
        raise InvalidRequestError(
            [FieldViolation("request_id", "was used before for a different request; make a new one")]
        )
