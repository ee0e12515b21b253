"""A GPU as a device of PyTorch."""

import threading
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from innerloop_learner.learner import Learner
from innerloop_server.engine.interface import GPU_BATCH
from innerloop_server.engine.pytorch.device import Device, Function
from innerloop_server.engine.pytorch.programs import Program


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
    def in_order(self) -> Iterator[None]:
        """See Device.in_order."""
        with self._lock, torch.cuda.device(self.torch_device), torch.cuda.stream(self._stream):
            yield

    @contextmanager
    def in_background(self) -> Iterator[None]:
        """See Device.in_background: a stream of its own, and no lock."""
        stream: Any = torch.cuda.Stream(self.torch_device)  # type: ignore[no-untyped-call]
        with torch.cuda.device(self.torch_device), torch.cuda.stream(stream):
            yield
            stream.synchronize()

    def run(self, program: Program, postprocess: Function | None = None, *, alone: bool = True) -> tuple[Tensor, ...]:
        """See Device.run; a GPU has no cores to share out."""
        del alone
        with self.in_order():
            captured = self._captured.get(program.key)
            if captured is None:
                inputs = (tensor.to(self.torch_device, non_blocking=True) for tensor in program.inputs)
                outputs = program.run(program.learner, *inputs)
            else:
                for static, tensor in zip(captured.inputs, program.inputs, strict=True):
                    static.copy_(tensor, non_blocking=True)
                captured.replay()
                outputs = captured.outputs
            if postprocess is not None:
                outputs = postprocess(*outputs)
            # Copied in the stream's order: the next replay can't overwrite them before.
            results = tuple(self._copy_out(output) for output in outputs)
            done = self._record()
            self.on_launch()
        done.synchronize()  # outside of the lock: the other thread hands its batch over meanwhile
        return results

    def fetch(self, read: Callable[[], Tensor]) -> Tensor:
        """See Device.fetch."""
        with self.in_order():
            result = self._copy_out(read())
            done = self._record()
        done.synchronize()
        return result

    def _copy_out(self, tensor: Tensor) -> Tensor:
        return self.empty(tensor.shape, tensor.dtype).copy_(tensor, non_blocking=True)

    def _record(self) -> Any:
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(self._stream)
        return done

    def capture(self, program: Program, learner: Learner) -> None:
        """Record a CUDA graph of the program. See Device.capture."""
        with self.in_order():
            static = tuple(tensor.to(self.torch_device) for tensor in program.inputs)
            for _ in range(2):  # libraries choose and set up their kernels before they are recorded
                program.run(learner, *static)
            torch.cuda.synchronize(self.torch_device)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                outputs = program.run(learner, *static)
            self._captured[program.key] = _Captured(graph.replay, static, outputs)
            weakref.finalize(program.computation, self._captured.pop, program.key, None)
