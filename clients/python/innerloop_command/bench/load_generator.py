"""Sends the requests of one process, and times the answers."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from innerloop.errors import AdaptationNotFoundError
from innerloop.timings import Timings
from innerloop_command.bench.live_adaptations import LiveAdaptations
from innerloop_command.bench.measurements import EVICTED, Measurements, RpcMeasurements
from innerloop_command.bench.request_sampling import Choice, arrivals, choices, popularities
from innerloop_command.bench.sender import Answer, Sender
from innerloop_command.bench.settings import BenchSettings, ClosedLoop, Load, OpenLoop
from innerloop_command.bench.workload import Workload


@dataclass(frozen=True)
class Share:
    """One process's part of a load.

    Attributes:
        load: that this process makes.
        max_under_way: requests of an open loop that may be under way in this process.
        seeds: name its random numbers: no other process, and no other load, has the same ones.
    """

    load: Load
    max_under_way: int
    seeds: tuple[int, ...]


async def make_load(
    share: Share, settings: BenchSettings, sender: Sender, live: LiveAdaptations, workload: Workload
) -> Measurements:
    """Make a load, warm-up first, and wait for the last answer."""
    return await _Generator(share, settings, sender, live, workload).run()


class _Generator:
    """Makes one load; takes the arguments of `make_load`. Everything runs on one event loop, so there are no locks."""

    def __init__(
        self, share: Share, settings: BenchSettings, sender: Sender, live: LiveAdaptations, workload: Workload
    ) -> None:
        self._share = share
        self._settings = settings
        self._sender = sender
        self._live = live
        self._workload = workload
        popularity = popularities(settings.popularity, settings.live_adaptations, settings.zipf_exponent)
        self._choices: Iterator[Choice] = choices(settings.mix, popularity, np.random.default_rng([*share.seeds, 0]))
        self._measured = Measurements({rpc: RpcMeasurements() for rpc, weight in settings.mix.items() if weight})
        self._begin = self._end = 0.0

    async def run(self) -> Measurements:
        calls, remade = self._sender.calls.copy(), self._live.remade.copy()
        started = perf_counter()
        self._begin = started + self._settings.warm_up
        self._end = self._begin + self._settings.duration
        match self._share.load:
            case ClosedLoop(clients):
                load = [self._send_in_turn() for _ in range(clients)]
            case OpenLoop(rate):
                load = [self._send_when_due(started, rate)]
        await asyncio.gather(*load, self._watch_cpu())
        self._measured.calls = self._sender.calls - calls
        self._measured.remade = self._live.remade - remade
        return self._measured

    async def _send_in_turn(self) -> None:
        """One client of the closed loop: it sends its next request when it has the answer to its last."""
        while perf_counter() < self._end:
            await self._ask()

    async def _send_when_due(self, started: float, rate: float) -> None:
        """The open loop: each request is sent when it is due, whether or not earlier ones have been answered."""
        under_way: set[asyncio.Task[None]] = set()
        for moment in arrivals(rate, np.random.default_rng([*self._share.seeds, 1])):
            due = started + moment
            if due >= self._end:
                break
            # Wait even when it is late: otherwise requests would be prepared, and the event loop would never send them.
            await asyncio.sleep(max(0.0, due - perf_counter()))
            if len(under_way) < self._share.max_under_way:
                task = asyncio.create_task(self._ask(due))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            elif due >= self._begin:
                self._measured.dropped += 1
        await asyncio.gather(*under_way)

    async def _ask(self, due: float | None = None) -> None:
        """Send one request and record what becomes of it; it is due at the given moment, or now."""
        choice = next(self._choices)
        asked = self._live.ids[choice.slot] if choice.rpc == "Predict" else ""
        request = self._request(choice, asked)
        sent = perf_counter()
        answer = await self._sender.send(choice.rpc, request)
        done = perf_counter()
        gone = choice.rpc == "Predict" and isinstance(answer.error, AdaptationNotFoundError)
        self._record(choice, EVICTED if gone else answer.status, sent if due is None else due, sent, done, answer)
        if gone:
            await self._live.remake(choice.slot, asked)

    def _request(self, choice: Choice, adaptation_id: str) -> bytes:
        match choice.rpc:
            case "Adapt":
                return self._workload.adapt(choice.variant)
            case "Predict":
                return self._workload.predict(choice.variant, adaptation_id)
            case "AdaptPredict":
                return self._workload.adapt_predict(choice.variant)

    def _record(self, choice: Choice, outcome: str, due: float, sent: float, done: float, answer: Answer) -> None:
        measured = self._measured.rpcs[choice.rpc]
        if outcome == "OK" and self._begin <= done < self._end:
            measured.answered += 1
        if self._begin <= due < self._end:
            timings = None if answer.error else Timings.from_message(answer.response.timings)
            measured.record(outcome, due, sent, done, timings)
            if isinstance(self._share.load, OpenLoop):
                self._measured.lag.record(sent - due)

    async def _watch_cpu(self) -> None:
        """Measure what this process uses from the end of the warm-up to the end."""
        await asyncio.sleep(max(0.0, self._begin - perf_counter()))
        used = time.process_time()
        await asyncio.sleep(max(0.0, self._end - perf_counter()))
        self._measured.cpu_seconds = time.process_time() - used
