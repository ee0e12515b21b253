"""The CPU as a device of PyTorch."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from innerloop_learner.learner import Learner
from innerloop_server.engine.interface import CPU_BATCH
from innerloop_server.engine.pytorch.device import Device, Function
from innerloop_server.engine.pytorch.programs import Program
from innerloop_server.engine.pytorch.worker import TorchWorker


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
        self._local = threading.local()

    def padded(self, size: int) -> int:
        """See Device.padded; no padding, which would save nothing on a CPU."""
        return size

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Plain memory."""
        return torch.empty(tuple(shape), dtype=dtype)

    def in_order(self) -> AbstractContextManager[None]:
        """Order is that of the calls."""
        return nullcontext()

    def in_background(self) -> AbstractContextManager[None]:
        """Any thread may compute at any time."""
        return nullcontext()

    def run(self, program: Program, postprocess: Function | None = None, *, alone: bool = True) -> tuple[Tensor, ...]:
        """See Device.run."""
        outputs = self._run_alone(program) if alone else self._run(program, 1)
        return outputs if postprocess is None else postprocess(*outputs)

    def fetch(self, read: Callable[[], Tensor]) -> Tensor:
        """See Device.fetch."""
        return read()

    def capture(self, program: Program, learner: Learner) -> None:
        """There is nothing to prepare."""

    def start_worker(self) -> TorchWorker | None:
        """See Engine.start_worker: a single lane has all cores for its thread."""
        return TorchWorker() if self.lanes > 1 else None

    def use_threads(self, threads: int) -> None:
        """Set the number of CPU threads that PyTorch uses for the work of this thread."""
        if getattr(self._local, "threads", None) != threads:  # PyTorch keeps the number by thread
            torch.set_num_threads(threads)
            self._local.threads = threads

    def _run_alone(self, program: Program) -> tuple[Tensor, ...]:
        """Outputs of a program that has the processors to itself."""
        choice = program.computation.thread_choice(program.key, self._thread_choices)
        threads = choice.next()
        started = time.perf_counter()
        outputs = self._run(program, threads)
        choice.took(threads, time.perf_counter() - started)
        return outputs

    def _run(self, program: Program, threads: int) -> tuple[Tensor, ...]:
        self.use_threads(threads)
        return program.run(program.learner, *program.inputs)
