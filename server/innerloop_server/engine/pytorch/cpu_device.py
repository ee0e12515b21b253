"""The CPU as a device of PyTorch."""

import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import structlog
import torch
from torch import Tensor

from innerloop_learner.learner import Learner
from innerloop_server.engine.interface import CPU_BATCH
from innerloop_server.engine.pytorch.computation import Computation
from innerloop_server.engine.pytorch.device import Device, Function, Remote
from innerloop_server.engine.pytorch.programs import Program
from innerloop_server.engine.pytorch.worker import Worker, WorkerError
from innerloop_server.engine.waiting import finish

QUIET_SECONDS = 0.2
START_SECONDS = 30.0
"""What a worker may take to start before its lane goes on without."""


class CpuDevice(Device):
    """The CPU: one batch on several threads, or several batches side by side in processes of one thread each.

    Args:
        threads: most of a computation that runs alone.
        lanes: batches side by side.
    """

    def __init__(self, threads: int, lanes: int) -> None:
        super().__init__()
        self.torch_device = torch.device("cpu")
        self.lanes = self.threads = lanes
        self.largest_batch, self.usual_batch, self.captures = CPU_BATCH, 1, False
        self._thread_choices = (threads, 1) if threads > 1 else (1,)
        self._running = 0
        self._shared = -math.inf  # when batches ran side by side last
        self._lock = threading.Lock()
        self._local = threading.local()
        self._workers: dict[int, Worker] = {}  # by lane
        self._starting = 0  # workers
        self._started = threading.Condition()

    def padded(self, size: int) -> int:
        """Nothing is gained by padding."""
        return size

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Plain memory."""
        return torch.empty(tuple(shape), dtype=dtype)

    def working(self) -> AbstractContextManager[None]:
        """Order is that of the calls."""
        return nullcontext()

    def beside(self) -> AbstractContextManager[None]:
        """Any thread may compute at any time."""
        return nullcontext()

    def run(self, program: Program, then: Function | None = None) -> tuple[Tensor, ...]:
        """See Device.run."""
        with self._alone() as alone:
            passed_on = None if alone else self._pass_on(program)
            if passed_on is None:
                outputs = self._run_alone(program) if alone else self._run_here(program, 1)
                return outputs if then is None else then(*outputs)
            return _copied(passed_on, then)

    def capture(self, program: Program, learner: Learner) -> None:
        """There is nothing to prepare."""

    def enter_lane(self, lane: int) -> None:
        """Give each of several lanes a process to compute in, and wait until it can."""
        if self.lanes == 1:
            return
        self._local.lane = lane
        with self._started:
            self._starting += 1
        self._start_worker(lane)
        if lane in self._workers:
            self._workers[lane].wait(START_SECONDS)
        with self._started:
            self._starting -= 1
            self._started.notify_all()

    def remote(self, lane: int, computation: Computation) -> Remote | None:
        """See Device.remote; None while nothing else is computed: the lane's thread is faster then."""
        worker = self._workers.get(lane)
        if worker is None or not worker.ready or worker.lost or not worker.knows(computation):
            return None
        if not self._running and time.monotonic() - self._shared > QUIET_SECONDS:
            return None
        self._set_threads(1)
        return partial(self._run_by, worker)

    async def _run_by(self, worker: Worker, program: Program, then: Function | None = None) -> tuple[Tensor, ...]:
        with self._alone():
            return _copied(await worker.run(program), then)

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """See Device.undisturbed: workers that start take time from everything."""
        with super().undisturbed():
            with self._started:
                self._started.wait_for(lambda: self._starting == 0)
            self._local.timing = True
            try:
                yield
            finally:
                self._local.timing = False

    def _start_worker(self, lane: int) -> None:
        """Give a lane a process; without one, it computes here."""
        try:
            self._workers[lane] = Worker()
        except OSError as error:
            structlog.get_logger().warning("worker not started", reason=str(error))

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether nothing else is or was computed a moment ago: then it is done here, without a hop to another process.

        While several callers are about, computing here would slow down every answer that this process gives.
        """
        with self._lock:
            self._running += 1
            now = time.monotonic()
            alone = (self._running == 1 and now - self._shared > QUIET_SECONDS) or getattr(self._local, "timing", False)
            if self._running > 1:
                self._shared = now
        try:
            yield alone
        finally:
            with self._lock:
                self._running -= 1

    def _run_alone(self, program: Program) -> tuple[Tensor, ...]:
        """Outputs of a program that has the processors to itself."""
        if program.computation.threads is not None:
            return self._run_here(program, program.computation.threads)
        choice = program.computation.thread_choice(program.key, self._thread_choices)
        threads = choice.next()
        started = time.perf_counter()
        outputs = self._run_here(program, threads)
        choice.took(threads, time.perf_counter() - started)
        return outputs

    def _run_here(self, program: Program, threads: int) -> tuple[Tensor, ...]:
        self._set_threads(threads)
        return program.run(program.learner, *program.inputs)

    def _set_threads(self, threads: int) -> None:
        if getattr(self._local, "threads", None) != threads:  # PyTorch keeps the number by thread
            torch.set_num_threads(threads)
            self._local.threads = threads

    def _pass_on(self, program: Program) -> tuple[Tensor, ...] | None:
        """What this lane's worker computed; None where it has none, or not yet, or it failed."""
        lane: int = getattr(self._local, "lane", -1)
        worker = self._workers.get(lane)
        if worker is None:
            return None
        log = structlog.get_logger()
        if worker.wait(0):
            try:
                return finish(worker.run(program))
            except WorkerError as error:
                log.warning("batch not computed by a worker", reason=str(error))
        if worker.ended:
            del self._workers[lane]
            worker.stop()
            if worker.ready:
                self._start_worker(lane)
            else:
                log.warning("worker ended before it was ready: this lane computes without")
        return None


def _copied(outputs: tuple[Tensor, ...], then: Function | None) -> tuple[Tensor, ...]:
    """Outputs of a worker, or of `then` called with them; the worker's next outputs will lie where its last ones do."""
    results = outputs if then is None else then(*outputs)
    return tuple(result.clone() for result in results)
