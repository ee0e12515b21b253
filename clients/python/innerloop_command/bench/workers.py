"""Processes that make load together."""

import asyncio
import selectors
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

from innerloop.errors import InnerloopError
from innerloop_command.bench.live_adaptations import LiveAdaptations
from innerloop_command.bench.load_generator import Share, make_load
from innerloop_command.bench.measurements import Measurements
from innerloop_command.bench.sender import Sender
from innerloop_command.bench.settings import BenchSettings, ClosedLoop, Load, OpenLoop
from innerloop_command.bench.workload import Workload

STOP_SECONDS = 5.0
ENDED = "a process that makes load has ended; what it printed says why"


@dataclass(frozen=True)
class Job:
    """Everything that a process needs for its work.

    Attributes:
        settings: of the run.
        workload: of the run.
        run: name of the run; see `LiveAdaptations`.
        ids: of the live adaptations.
    """

    settings: BenchSettings
    workload: Workload
    run: str
    ids: Sequence[str]


def shares(load: Load, settings: BenchSettings, point: int) -> list[Share]:
    """Divide a load between processes; some get nothing to do where there are more of them than clients.

    The parts of a Poisson process are Poisson processes, each with its part of the rate.
    """
    count = settings.processes
    match load:
        case ClosedLoop(clients):
            sizes = [clients // count + (index < clients % count) for index in range(count)]
            loads: list[Load] = [ClosedLoop(size) for size in sizes if size]
        case OpenLoop(rate):
            loads = [OpenLoop(rate / count)] * count
    most = -(-settings.max_under_way // count)
    return [Share(part, most, (settings.seed, point, index)) for index, part in enumerate(loads)]


class Workers:
    """Processes that are connected to the server and ready to send; a context manager that ends them."""

    def __init__(self, job: Job) -> None:
        # Forking would copy gRPC's threads half-way.
        context = get_context("spawn")
        self._pipes: list[Connection[Any, Any]] = []
        self._processes = []
        for _ in range(job.settings.processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            _send(ours, job)
            self._pipes.append(ours)
            self._processes.append(process)
        for pipe in self._pipes:
            _receive(pipe)

    def start(self, parts: Sequence[Share]) -> None:
        """Let the processes begin, all at once. Raises what `results` raises."""
        self._busy = self._pipes[: len(parts)]
        for pipe, part in zip(self._busy, parts, strict=True):
            _send(pipe, part)

    def results(self) -> list[tuple[Measurements, list[str]]]:
        """Wait for the end, and get what each process measured and the live adaptations it knows.

        Raises:
            InnerloopError: a process has died.
        """
        return [_receive(pipe) for pipe in self._busy]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            # Without its pipe, a process that waits for work ends; one that is making load needs to be told.
            process.join(STOP_SECONDS if error is None else 0)
            if process.is_alive():
                process.terminate()
                process.join()


def _send(pipe: "Connection[Any, Any]", what: Any) -> None:
    try:
        pipe.send(what)
    except OSError:
        raise InnerloopError(ENDED) from None


def _receive(pipe: "Connection[Any, Any]") -> Any:
    try:
        return pipe.recv()
    except (EOFError, OSError):
        raise InnerloopError(ENDED) from None


def _work(pipe: "Connection[Any, Any]") -> None:
    """The work of a process."""
    # Ctrl-C reaches all processes of a terminal; the one that started the others ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    job: Job = pipe.recv()
    with asyncio.Runner(loop_factory=_event_loop) as runner:
        sender = runner.run(_connect(job.settings))
        live = LiveAdaptations(job.run, job.ids, sender, job.workload)
        pipe.send(None)
        while True:
            try:
                share = pipe.recv()
            except EOFError:
                break
            measured = runner.run(make_load(share, job.settings, sender, live, job.workload))
            pipe.send((measured, live.ids))
        runner.run(sender.close())


async def _connect(settings: BenchSettings) -> Sender:
    sender = Sender(settings)
    await sender.connect()
    return sender


def _event_loop() -> asyncio.AbstractEventLoop:
    # epoll, the default, sleeps whole milliseconds, by which requests would be late; select sleeps microseconds.
    return asyncio.SelectorEventLoop(selectors.SelectSelector())
