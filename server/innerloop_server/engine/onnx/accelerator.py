"""GPUs as devices of ONNX Runtime."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime

from innerloop_learner.run_limit import limited_run
from innerloop_server.domain.tasks import Array
from innerloop_server.engine.interface import GPU_BATCH
from innerloop_server.engine.onnx.device import CPU, OnnxDevice, Outputs, Session, Tensor, Tensors, filled, make_session
from innerloop_server.engine.onnx.task_graphs import concatenating, splitting


class Accelerator(OnnxDevice):
    """A device with memory of its own, where task states stay. One batch runs while the next is prepared.

    Inputs and answers are bound to the host's memory, states to the device's. Small graphs split batches into states
    and join states to batches, since ONNX Runtime offers no other way to copy on a device.

    Args:
        kind: ONNX Runtime's name of the device, "cuda"; tests take "cpu", and the host stands in for an accelerator.
        index: number of the device among those of its kind.
        providers: ONNX Runtime's execution providers, best first, with options.
    """

    def __init__(self, kind: str, index: int, providers: Sequence[tuple[str, Mapping[str, str]]]) -> None:
        self.name, self.in_host_memory = f"{kind}:{index}", False
        self.lanes, self.threads = 1, 2
        self.largest_batch = self.usual_batch = GPU_BATCH
        self._kind, self._index = kind, index
        self._providers = [*providers, (CPU, {})]
        self._graphs: dict[tuple[object, ...], Session] = {}

    def session(self, graph: bytes) -> Session:
        """See OnnxDevice.session."""
        session = make_session(graph, self._providers, 1)
        # ONNX Runtime silently leaves out a provider that it can't set up.
        missing = {name for name, _ in self._providers} - set(session.get_providers())
        if missing:
            raise RuntimeError(f"{', '.join(missing)} could not be set up")
        return session

    def padded(self, size: int) -> int:
        """The next power of two, so that few shapes of batches have to be set up."""
        return 1 << (size - 1).bit_length()

    def run(
        self, session: Session, inputs: Mapping[str, Array], state: Tensors, keep: Sequence[str], read: Sequence[str]
    ) -> Outputs:
        """See OnnxDevice.run."""
        binding = session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        for name, value in state.items():
            binding.bind_ortvalue_input(name, value)
        for name in keep:
            binding.bind_output(name, self._kind, self._index)
        for name in read:
            binding.bind_output(name, "cpu")
        with limited_run() as options:
            session.run_with_iobinding(binding, options)
        values = binding.get_outputs()
        return Outputs(dict(zip(keep, values, strict=False)), [value.numpy() for value in values[len(keep) :]])

    def split(self, batch: Tensors, tasks: int) -> list[Tensors]:
        """See OnnxDevice.split."""
        rows = self.shape(next(iter(batch.values())))[0]
        if rows == 1:
            return [batch]
        session = self._graph("split", batch, rows)
        names = [output.name for output in session.get_outputs()]
        values = self.run(session, {}, batch, names, []).kept
        return [{name: values[f"{name}.{task}"] for name in batch} for task in range(tasks)]

    def join(self, states: Sequence[Tensors], tasks: int) -> Tensors:
        """See OnnxDevice.join."""
        if tasks == 1:
            return states[0]
        session = self._graph("concatenate", states[0], tasks)
        rows = {
            f"{name}.{task}": value for task, state in enumerate(filled(states, tasks)) for name, value in state.items()
        }
        return self.run(session, {}, rows, list(states[0]), []).kept

    def to_host(self, state: Tensors) -> dict[str, Array]:
        """See OnnxDevice.to_host."""
        return {name: np.array(value.numpy()) for name, value in state.items()}

    def from_host(self, state: Mapping[str, Array]) -> Tensors:
        """See OnnxDevice.from_host."""
        return {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(array, self._kind, self._index)
            for name, array in state.items()
        }

    def shape(self, tensor: Tensor) -> tuple[int, ...]:
        """See OnnxDevice.shape."""
        return tuple(tensor.shape())

    def dtype(self, tensor: Tensor) -> str:
        """See OnnxDevice.dtype."""
        return str(tensor.data_type())

    def size_bytes(self, tensor: Tensor) -> int:
        """See OnnxDevice.size_bytes."""
        return int(tensor.tensor_size_in_bytes())

    def _graph(self, what: str, state: Tensors, tasks: int) -> Session:
        types = {name: value.element_type() for name, value in state.items()}
        key = (what, tasks, *types.items())
        if key not in self._graphs:
            make = splitting if what == "split" else concatenating
            self._graphs.setdefault(key, self.session(make(types, tasks)))  # another thread may have made it meanwhile
        return self._graphs[key]
