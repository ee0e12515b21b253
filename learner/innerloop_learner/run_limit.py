"""Limits the time that ONNX Runtime takes to load a graph and to run one, and ends runs that nobody needs any more.

A graph can hold loops, whose rounds are data: without a limit, a graph of a few hundred bytes holds a thread for ever.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

LOAD_SECONDS = 120.0
"""Seconds that loading a graph may take. The largest encoders of the catalogue take a few."""

RUN_SECONDS = 30.0
"""Seconds that one run of a graph may take. Requests are computed in parts, which take a fraction of a second."""

CHECK_SECONDS = 0.25
"""Seconds between two looks at what is running: a limit is kept, and a needless run ended, to within them."""

IDLE_SECONDS = 5.0
"""Seconds without any run after which the watching thread ends: starting it takes longer than a short run."""


class RunTooLongError(RuntimeError):
    """A graph was stopped because it took too long."""


class RunStoppedError(RuntimeError):
    """A graph was stopped because nobody needs the result any more."""


_needless: ContextVar[Callable[[], bool]] = ContextVar("needless", default=lambda: False)


class _Run(NamedTuple):
    """What runs: when it must have ended, whether nobody needs it, and how it is stopped."""

    until: float
    needless: Callable[[], bool]
    stop: Callable[[], None]


class _Watchdog:
    """One thread that stops what runs for too long or for nobody; it is there only while something runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[object, _Run] = {}
        self._watching = False

    @contextmanager
    def limit(self, seconds: float, stop: Callable[[], None]) -> Iterator[None]:
        """Call `stop` if what is done inside takes longer, or nobody needs it any more (`stopping_runs`).

        Raises:
            RunTooLongError: it took longer, and raised something.
            RunStoppedError: nobody needs it, and it raised something.
        """
        key, until, needless = object(), time.monotonic() + seconds, _needless.get()
        with self._lock:
            self._running[key] = _Run(until, needless, stop)
            if not self._watching:
                self._watching = True
                threading.Thread(target=self._watch, name="graph-watchdog", daemon=True).start()
        try:
            yield
        except Exception as error:
            if needless():
                raise RunStoppedError("nobody needs it any more") from error
            if time.monotonic() >= until:
                raise RunTooLongError(f"it took longer than {seconds:g} s") from error
            raise
        finally:
            with self._lock:
                del self._running[key]

    def _watch(self) -> None:
        idle_since = time.monotonic()
        while True:
            time.sleep(CHECK_SECONDS)
            now = time.monotonic()
            with self._lock:
                due = [run.stop for run in self._running.values() if run.until <= now or run.needless()]
                if self._running:
                    idle_since = now
                elif now - idle_since > IDLE_SECONDS:
                    self._watching = False
                    return
            for stop in due:
                stop()


_watchdog = _Watchdog()


def load_graph(graph: bytes, options: Any, providers: Sequence[Any]) -> Any:
    """An `onnxruntime.InferenceSession`; ONNX Runtime's own errors pass through.

    Raises:
        RunTooLongError: it took longer than LOAD_SECONDS.
    """
    import onnxruntime

    with _watchdog.limit(LOAD_SECONDS, lambda: options.set_load_cancellation_flag(True)):
        return onnxruntime.InferenceSession(graph, options, providers=[*providers])


@contextmanager
def stopping_runs(needless: Callable[[], bool]) -> Iterator[None]:
    """Have graphs that this thread runs inside end early, with RunStoppedError, once their results are needless.

    Args:
        needless: says so; any thread may call it, again and again.
    """
    before = _needless.set(needless)
    try:
        yield
    finally:
        _needless.reset(before)


@contextmanager
def limited_run() -> Iterator[Any]:
    """The `onnxruntime.RunOptions` of one run, which is stopped if it takes longer than RUN_SECONDS or is needless.

    Raises:
        RunTooLongError: it was stopped since it took too long.
        RunStoppedError: it was stopped since nobody needs it any more.
    """
    import onnxruntime

    options = onnxruntime.RunOptions()

    def stop() -> None:
        options.terminate = True

    with _watchdog.limit(RUN_SECONDS, stop):
        yield options
