"""The CPU as a device of ONNX Runtime."""

from collections.abc import Mapping, Sequence

import numpy as np

from innerloop_learner.run_limit import limited_run
from innerloop_server.domain.tasks import Array
from innerloop_server.engine.cores import lone_threads, usable_cores
from innerloop_server.engine.interface import CPU_BATCH
from innerloop_server.engine.onnx.device import CPU, OnnxDevice, Outputs, Session, Tensors, filled, make_session


class HostDevice(OnnxDevice):
    """The CPU: several batches side by side on one thread each, or one batch at a time on several threads.

    A session has threads of its own, whose number is fixed when a graph is loaded: `threads` if there is one lane, and
    one if there are several. Lanes are threads of this process, since running a graph releases the interpreter.

    Args:
        threads: threads of a graph if there is one lane; None for half of the cores, but at most 4.
        lanes: number of batches side by side; None for one per core.
    """

    def __init__(self, threads: int | None = None, lanes: int | None = None) -> None:
        self.name, self.in_host_memory = "cpu", True
        self.lanes = self.threads = lanes or usable_cores()
        self.largest_batch, self.usual_batch = CPU_BATCH, 1
        self._graph_threads = (threads or lone_threads()) if self.lanes == 1 else 1

    def session(self, graph: bytes) -> Session:
        """See OnnxDevice.session."""
        return make_session(graph, [CPU], self._graph_threads)

    def padded(self, size: int) -> int:
        """See OnnxDevice.padded; no padding, which would save nothing on a CPU."""
        return size

    def run(
        self, session: Session, inputs: Mapping[str, Array], state: Tensors, keep: Sequence[str], read: Sequence[str]
    ) -> Outputs:
        """See OnnxDevice.run."""
        with limited_run() as options:
            values = session.run([*keep, *read], {**inputs, **state}, options)
        return Outputs(dict(zip(keep, values, strict=False)), values[len(keep) :])

    def split(self, batch: Tensors, tasks: int) -> list[Tensors]:
        """See OnnxDevice.split."""
        return [{name: values[task : task + 1].copy() for name, values in batch.items()} for task in range(tasks)]

    def join(self, states: Sequence[Tensors], tasks: int) -> Tensors:
        """See OnnxDevice.join."""
        if tasks == 1:
            return states[0]
        return {name: np.concatenate([state[name] for state in filled(states, tasks)]) for name in states[0]}

    def to_host(self, state: Tensors) -> dict[str, Array]:
        """See OnnxDevice.to_host; states are in the host's memory already."""
        return state

    def from_host(self, state: Mapping[str, Array]) -> Tensors:
        """See OnnxDevice.from_host; states stay where they are."""
        return dict(state)

    def shape(self, tensor: Array) -> tuple[int, ...]:
        """See OnnxDevice.shape."""
        return tuple(tensor.shape)

    def dtype(self, tensor: Array) -> str:
        """See OnnxDevice.dtype."""
        return str(tensor.dtype)

    def size_bytes(self, tensor: Array) -> int:
        """See OnnxDevice.size_bytes."""
        return int(tensor.nbytes)
