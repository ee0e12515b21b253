"""A clock that jumps over every wait, and lanes that take as long as they are told: hours of load pass in a second."""

import asyncio
import selectors
import time

from fakes import FakeState

from innerloop_server.domain.answers import Answers
from innerloop_server.engine.interface import AdaptedTask, BatchResult, PredictBatch


class JumpingSelector(selectors.DefaultSelector):
    """Advances the clock instead of waiting."""

    def __init__(self):
        super().__init__()
        self.now = 0.0

    def select(self, timeout=None):
        events = super().select(0)
        if not events and timeout:
            self.now += timeout
        return events


def run(monkeypatch, main):
    """Run a coroutine function on an event loop whose clock jumps; `time.monotonic` shows the same time."""
    selector = JumpingSelector()
    monkeypatch.setattr(time, "monotonic", lambda: selector.now)
    try:
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
            return runner.run(main())
    finally:
        monkeypatch.undo()


class FakeLane:
    """Computes a batch in the seconds that a function of the batch says."""

    def __init__(self, seconds, device):
        self._seconds = seconds
        self._device = device

    async def compute(self, model, batch):
        del model
        async with self._device:
            await asyncio.sleep(self._seconds(batch))
        if isinstance(batch, PredictBatch):
            return BatchResult([], [Answers(values=query) for query in batch.queries], {})
        return BatchResult([AdaptedTask(FakeState(), ())] * len(batch.tasks), [], {})


class FakeLanes:
    """Takes the place of `Lanes`, of which some compute side by side and the others make batches ready meanwhile.

    There are as many feeders as lanes, so that none of them ever waits for one.
    """

    def __init__(self, count, side_by_side, seconds):
        self.count = count
        device = asyncio.Semaphore(side_by_side)
        self._free = [FakeLane(seconds, device) for _ in range(count)]

    async def take(self):
        return self._free.pop()

    def give_back(self, lane):
        self._free.append(lane)
