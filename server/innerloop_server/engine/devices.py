"""Devices: how programs run on one, what batches are padded to there, and how many run side by side.

A device runs a program on inputs that lie in host memory and returns outputs that lie there again. Everything above
speaks of programs only.
"""

import math
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import structlog
import torch
from torch import Tensor

from innerloop_learner.learner import Learner
from innerloop_server.engine.computation import Computation
from innerloop_server.engine.cores import lone_threads, usable_cores
from innerloop_server.engine.interface import CPU_BATCH, GPU_BATCH
from innerloop_server.engine.programs import Program
from innerloop_server.engine.waiting import Waiting, finish
from innerloop_server.engine.worker import Worker, WorkerError

Function = Callable[..., tuple[Tensor, ...]]
Remote = Callable[[Program, Function | None], Waiting[tuple[Tensor, ...]]]
"""Does what `Device.run` does in another process, and waits for that only; raises RemoteError where it can't."""

QUIET_SECONDS = 0.2
START_SECONDS = 30.0
"""What a worker may take to start before its lane goes on without."""


def choose_device(name: str, threads: int | None, lanes: int | None) -> "Device":
    """The device of that name.

    Args:
        name: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N".
        threads: most CPU threads of a computation that runs alone; half of the cores, but at most 4, when None.
        lanes: batches that a CPU computes side by side; one for every core when None.

    Raises:
        ValueError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cpu":
        return CpuDevice(threads or lone_threads(), lanes or usable_cores())
    if (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"there is no device {name} on this machine")
    return CudaDevice(device)


class Device(ABC):
    """Somewhere to compute.

    Attributes:
        torch_device: PyTorch's name for it.
        lanes: batches that run side by side without taking time from each other.
        threads: threads that feed it.
        largest_batch: tasks beyond which larger batches gain nothing.
        usual_batch: tasks up to which programs are prepared for every size.
        captures: whether it gains from programs that were captured beforehand.
        meanwhile: is called in the order of the device's work, when it has been given a program that takes a while;
            never by a CPU.
    """

    torch_device: torch.device
    lanes: int
    threads: int
    largest_batch: int
    usual_batch: int
    captures: bool
    meanwhile: Callable[[], None]

    def __init__(self) -> None:
        self.meanwhile = lambda: None
        self._timing = threading.Lock()

    @abstractmethod
    def padded(self, size: int) -> int:
        """What a batch of that many tasks or examples is padded to."""

    @abstractmethod
    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Host memory for inputs, from which they travel to the device without another copy on the host."""

    @abstractmethod
    def working(self) -> AbstractContextManager[None]:
        """Inside, what this thread asks of PyTorch happens in the order of the device's work."""

    @abstractmethod
    def beside(self) -> AbstractContextManager[None]:
        """Inside, what this thread asks of PyTorch happens beside the device's work, and holds up none of it."""

    @abstractmethod
    def run(self, program: Program, then: Function | None = None) -> tuple[Tensor, ...]:
        """Outputs of a program, or of `then` called with them, in host memory.

        Args:
            program: its inputs lie in memory made by `empty`.
            then: what is to be done with the outputs on the device, never captured.
        """

    @abstractmethod
    def capture(self, program: Program, learner: Learner) -> None:
        """Prepare for programs of this key, where the device gains from it.

        Raises:
            RuntimeError: it can't be captured.
        """

    def enter_lane(self, lane: int) -> None:  # noqa: B027 - most devices feel no difference
        """Called by each thread that feeds the device, before anything else."""

    def remote(self, lane: int, computation: Computation) -> Remote | None:
        """How the process behind a lane runs programs of a computation, where it shall do so now."""
        del lane, computation
        return None

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Inside, what this thread computes can be timed: it is what the device would do if nothing else was asked."""
        with self._timing:
            yield


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


class _Captured(NamedTuple):
    """A captured program: fill its inputs, replay, read its outputs."""

    replay: Callable[[], None]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class CudaDevice(Device):
    """A GPU: one batch runs while the next is made ready, and what was captured is replayed as one CUDA graph.

    Work of both feeding threads goes to one stream, so that everything happens in the order in which it was asked for,
    and a thread waits for its own results only.

    Args:
        device: which GPU.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.torch_device = device
        self.lanes, self.threads = 1, 2
        self.largest_batch, self.usual_batch, self.captures = GPU_BATCH, GPU_BATCH, True
        self._lock = threading.RLock()
        self._stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool: Any = torch.cuda.graph_pool_handle()
        self._captured: dict[Hashable, _Captured] = {}

    def padded(self, size: int) -> int:
        """The next power of two, so that few programs serve all sizes."""
        return 1 << (size - 1).bit_length()

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Pinned memory; PyTorch keeps it from being used again before its copy is over."""
        return torch.empty(tuple(shape), dtype=dtype, pin_memory=True)

    @contextmanager
    def working(self) -> Iterator[None]:
        """See Device.working."""
        with self._lock, torch.cuda.device(self.torch_device), torch.cuda.stream(self._stream):
            yield

    @contextmanager
    def beside(self) -> Iterator[None]:
        """See Device.beside: a stream of its own, and no lock."""
        stream: Any = torch.cuda.Stream(self.torch_device)  # type: ignore[no-untyped-call]
        with torch.cuda.device(self.torch_device), torch.cuda.stream(stream):
            yield
            stream.synchronize()

    def run(self, program: Program, then: Function | None = None) -> tuple[Tensor, ...]:
        """See Device.run."""
        with self.working():
            captured = self._captured.get(program.key)
            if captured is None:
                inputs = (tensor.to(self.torch_device, non_blocking=True) for tensor in program.inputs)
                outputs = program.run(program.learner, *inputs)
            else:
                for static, tensor in zip(captured.inputs, program.inputs, strict=True):
                    static.copy_(tensor, non_blocking=True)
                captured.replay()
                outputs = captured.outputs
            if then is not None:
                outputs = then(*outputs)
            # Copied in the stream's order: the next replay can't overwrite them before.
            results = tuple(
                self.empty(output.shape, output.dtype).copy_(output, non_blocking=True) for output in outputs
            )
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(self._stream)
            self.meanwhile()
        done.synchronize()  # outside of the lock: the other thread hands its batch over meanwhile
        return results

    def capture(self, program: Program, learner: Learner) -> None:
        """Record a CUDA graph of the program. See Device.capture."""
        with self.working():
            static = tuple(tensor.to(self.torch_device) for tensor in program.inputs)
            for _ in range(2):  # libraries choose and set up their kernels before they are recorded
                program.run(learner, *static)
            torch.cuda.synchronize(self.torch_device)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                outputs = program.run(learner, *static)
            self._captured[program.key] = _Captured(graph.replay, static, outputs)
            weakref.finalize(program.computation, self._captured.pop, program.key, None)
