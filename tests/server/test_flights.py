"""Equal Adapt requests at the same time."""

import asyncio

import pytest

from innerloop_server.adaptations.flights import Flights
from innerloop_server.domain.adaptations import RequestKey
from innerloop_server.domain.deadline import Deadline
from innerloop_server.domain.errors import InvalidRequestError, OverloadedError

KEY = RequestKey("me", "request")


class Work:
    """A computation that can be counted, finished and watched."""

    def __init__(self):
        self.starts = 0
        self.cancelled = False
        self.done = asyncio.Event()
        self.deadline = None

    async def __call__(self, deadline):
        self.starts += 1
        self.deadline = deadline
        try:
            await self.done.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return "adaptation"


@pytest.fixture
async def work():
    return Work()


async def join(flights, work, fingerprint=b"same", seconds=None, key=KEY):
    task = asyncio.create_task(flights.join(key, fingerprint, Deadline(seconds), work))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


async def test_equal_requests_share_one_computation(work):
    flights = Flights()
    callers = [await join(flights, work) for _ in range(3)]
    work.done.set()
    assert await asyncio.gather(*callers) == ["adaptation"] * 3
    assert work.starts == 1


async def test_the_first_caller_leaving_does_not_take_the_answer_from_the_second(work):
    flights = Flights()
    first, second = await join(flights, work), await join(flights, work)
    first.cancel()
    await asyncio.sleep(0)
    work.done.set()
    assert await second == "adaptation"
    assert work.starts == 1


async def test_the_last_caller_leaving_ends_the_computation(work):
    flights = Flights()
    callers = [await join(flights, work) for _ in range(2)]
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    await asyncio.sleep(0)
    assert work.cancelled


async def test_a_request_after_the_last_caller_left_starts_afresh(work):
    flights = Flights()
    first = await join(flights, work)
    first.cancel()
    await asyncio.wait([first])
    again = await join(flights, work)
    work.done.set()
    assert await again == "adaptation"
    assert work.starts == 2


async def test_the_computation_has_until_the_latest_deadline_of_its_callers(work):
    flights = Flights()
    callers = [await join(flights, work, seconds=seconds) for seconds in (1, 100)]
    assert work.deadline.at == pytest.approx(Deadline(100).at, abs=1)
    work.done.set()
    await asyncio.gather(*callers)


async def test_the_same_id_for_another_request_is_refused(work):
    flights = Flights()
    first = await join(flights, work)
    with pytest.raises(InvalidRequestError, match="request_id"):
        await flights.join(KEY, b"other", Deadline(), work)
    work.done.set()
    assert await first == "adaptation"


async def test_other_owners_may_use_the_same_id(work):
    flights = Flights()
    callers = [await join(flights, work), await join(flights, work, b"other", key=RequestKey("you", "request"))]
    work.done.set()
    await asyncio.gather(*callers)
    assert work.starts == 2


async def test_a_failure_reaches_every_caller_and_is_forgotten():
    flights = Flights()

    async def fail(_):
        await asyncio.sleep(0.01)
        raise OverloadedError(1.0)

    results = await asyncio.gather(
        *(flights.join(KEY, b"", Deadline(), fail) for _ in range(2)), return_exceptions=True
    )
    assert [type(result) for result in results] == [OverloadedError] * 2
    assert not flights._flights
