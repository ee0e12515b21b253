"""Leads a measurement from beginning to end."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from innerloop.calls import new_request_id
from innerloop.client import Client
from innerloop.errors import AdaptationNotFoundError, InnerloopError
from innerloop.models import Model
from innerloop_command.bench.live_adaptations import LiveAdaptations, delete_adaptations
from innerloop_command.bench.measurements import Measurements
from innerloop_command.bench.results import BenchResult, LoadResult, describe_machine
from innerloop_command.bench.sender import Sender
from innerloop_command.bench.server_usage import Look, ServerUsage, Watch
from innerloop_command.bench.settings import BenchSettings
from innerloop_command.bench.workers import Job, Workers, shares
from innerloop_command.bench.workload import Workload

TICK_SECONDS = 0.1


class Progress(Protocol):
    """Is told how far a run has come."""

    def __call__(self, stage: str, done: float) -> None:
        """A stage such as "warm-up and measurement" is done up to this fraction."""


def run_bench(settings: BenchSettings, progress: Progress | None = None) -> BenchResult:
    """Measure a running server: make live adaptations, make each load in turn, delete the adaptations again.

    Load is made by processes of their own, which are spawned: a script that calls this needs the usual
    `if __name__ == "__main__":`.

    Raises:
        InnerloopError: the server can't be reached, does not know the model, or refuses its first requests. Requests
            that fail later are counted in the result.
    """
    return _Run(settings, progress or _silent).run()


class _Run:
    """One run; takes the arguments of `run_bench`."""

    def __init__(self, settings: BenchSettings, progress: Progress) -> None:
        self._settings = settings
        self._progress = progress
        self._name = new_request_id()
        self._watch = Watch(settings.model, settings.metrics_url, settings.server_pid)
        self._calls: Counter[tuple[str, str]] = Counter()
        self._known_ids: set[str] = set()

    def run(self) -> BenchResult:
        model = self._ask_about_model()
        workload = Workload(model, self._settings)
        self._watch.look()  # fails now, instead of after the first load, if the metrics can't be read
        try:
            ids = asyncio.run(self._prepare(workload))
            with Workers(Job(self._settings, workload, self._name, ids)) as workers:
                loads = [self._measure(workers, point) for point in range(len(self._settings.loads))]
        finally:
            asyncio.run(self._clean_up())
        return BenchResult(self._settings, model, workload.size, loads, self._calls, describe_machine())

    def _ask_about_model(self) -> Model:
        settings = self._settings
        with Client(
            settings.server, tls=settings.tls, api_key=settings.api_key, timeout=settings.timeout, retries=0
        ) as client:
            return client.model(settings.model)

    async def _prepare(self, workload: Workload) -> list[str]:
        """Make the live adaptations, and send one request of each kind of the mix; returns the adaptations' ids."""
        mix = self._settings.mix
        async with Sender(self._settings) as sender:
            live = LiveAdaptations(self._name, [""] * self._settings.live_adaptations, sender, workload)
            try:
                if mix.get("Adapt"):
                    (await sender.send("Adapt", workload.adapt(0))).check()
                if mix.get("AdaptPredict"):
                    (await sender.send("AdaptPredict", workload.adapt_predict(0))).check()
                if mix.get("Predict"):
                    await live.make_all(self._stage("making adaptations"))
                    answer = await sender.send("Predict", workload.predict(0, live.ids[-1]))
                    if not isinstance(answer.error, AdaptationNotFoundError):  # where few fit, it may have given way
                        answer.check()
            finally:
                self._known_ids.update(filter(None, live.ids))
                self._calls += sender.calls
        return live.ids

    def _measure(self, workers: Workers, point: int) -> LoadResult:
        """Make one load, and measure it."""
        settings = self._settings
        load = settings.loads[point]
        parts = shares(load, settings, point)
        workers.start(parts)
        started = time.perf_counter()
        stage = self._stage(f"measuring with {load}")
        try:
            server = self._watch_server(started, stage)
        except InnerloopError as error:  # such as when it has died: what the callers saw of that is yet to be told
            server = ServerUsage(unseen=str(error))
        results = workers.results()
        measured: Measurements = results[0][0]
        for other, _ in results[1:]:
            measured.add(other)
        for _, ids in results:
            self._known_ids.update(ids)
        self._calls += measured.calls
        available = min(len(parts), os.cpu_count() or 1)
        return LoadResult(load, settings.duration, measured, available, server)

    def _watch_server(self, started: float, stage: Callable[[float], None]) -> ServerUsage:
        """Usage of the server while a load is measured that began at a moment."""
        before = self._look_at(started, self._settings.warm_up, stage)
        after = self._look_at(started, self._settings.warm_up + self._settings.duration, stage)
        return self._watch.between(before, after)

    def _look_at(self, started: float, moment: float, stage: Callable[[float], None]) -> Look:
        """Look at the server a number of seconds after the start of a load."""
        whole = self._settings.warm_up + self._settings.duration
        while (rest := started + moment - time.perf_counter()) > 0:
            stage((moment - rest) / whole)
            time.sleep(min(rest, TICK_SECONDS))
        return self._watch.look()

    async def _clean_up(self) -> None:
        if self._settings.keep_adaptations:
            return
        async with Sender(self._settings) as sender:
            # What can't be deleted expires; that must not hide what was measured, nor why that was cut short.
            with suppress(InnerloopError):
                await delete_adaptations(self._known_ids, sender, self._stage("deleting adaptations"))
            self._calls += sender.calls

    def _stage(self, name: str) -> Callable[[float], None]:
        return lambda done: self._progress(name, done)


def _silent(stage: str, done: float) -> None:
    pass
