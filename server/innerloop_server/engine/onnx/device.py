"""The interface of ONNX Runtime's devices: they run graphs, and keep task states between runs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import onnxruntime

from innerloop_learner.run_limit import load_graph
from innerloop_learner.self_contained import reach_of
from innerloop_server.domain.tasks import Array
from innerloop_server.engine.interface import LoadError

Session = Any
"""An `onnxruntime.InferenceSession`; the package has no types."""

Tensor = Any
"""A tensor on the device: an array, or an `OrtValue`."""

Tensors = dict[str, Tensor]

ERRORS_ONLY = 3
CPU = "CPUExecutionProvider"


class Outputs(NamedTuple):
    """The outputs of a graph.

    Attributes:
        kept: tensors by name, which stay on the device.
        read: arrays in the host's memory.
    """

    kept: Tensors
    read: list[Array]


class OnnxDevice(ABC):
    """A device that runs graphs.

    Attributes:
        name: "cpu", or for example "cuda:0".
        lanes: number of batches that run side by side without slowing each other down.
        threads: number of threads that prepare batches and run them.
        largest_batch: number of tasks above which larger batches raise throughput no further.
        usual_batch: number of tasks up to which batches are tried out when a model is loaded.
        in_host_memory: whether its tensors lie in the host's memory.
    """

    name: str
    lanes: int
    threads: int
    largest_batch: int
    usual_batch: int
    in_host_memory: bool

    @abstractmethod
    def session(self, graph: bytes) -> Session:
        """Load a graph, which any number of threads may run at a time; ONNX Runtime's own errors pass through."""

    @abstractmethod
    def padded(self, size: int) -> int:
        """The number of tasks or examples that a batch of `count` is padded to."""

    @abstractmethod
    def run(
        self, session: Session, inputs: Mapping[str, Array], state: Tensors, keep: Sequence[str], read: Sequence[str]
    ) -> Outputs:
        """Run a graph; ONNX Runtime's own errors pass through.

        Args:
            session: the graph.
            inputs: inputs in the host's memory, by name.
            state: further inputs, which are on the device, by name.
            keep: names of the outputs to keep on the device.
            read: names of the outputs to bring to the host's memory.

        Raises:
            RunTooLongError: it took too long (see `limited_run`).
        """

    @abstractmethod
    def split(self, batch: Tensors, tasks: int) -> list[Tensors]:
        """Copy the first states of a batch [T, ...] into tensors of their own, [1, ...] each."""

    @abstractmethod
    def join(self, states: Sequence[Tensors], tasks: int) -> Tensors:
        """Join states [1, ...] to a batch of `tasks` tasks; copies of the first state pad it."""

    @abstractmethod
    def to_host(self, state: Tensors) -> dict[str, Array]:
        """Copy a state to the host's memory."""

    @abstractmethod
    def from_host(self, state: Mapping[str, Array]) -> Tensors:
        """Copy back a state that `to_host` copied."""

    @abstractmethod
    def shape(self, tensor: Tensor) -> tuple[int, ...]:
        """Shape of a tensor on the device."""

    @abstractmethod
    def dtype(self, tensor: Tensor) -> str:
        """Name of the element type of a tensor on the device."""

    @abstractmethod
    def size_bytes(self, tensor: Tensor) -> int:
        """Size in bytes of a tensor on the device."""


def filled(states: Sequence[Tensors], tasks: int) -> list[Tensors]:
    """Pad states to `tasks` of them by repeating the first."""
    return [*states, *[states[0]] * (tasks - len(states))]


def make_session(graph: bytes, providers: Sequence[Any], threads: int) -> Session:
    """Load a graph into ONNX Runtime, whose own errors pass through.

    Args:
        graph: content of the ONNX file.
        providers: ONNX Runtime's execution providers, best first.
        threads: CPU threads of one operator. Operators run one after another, and idle threads sleep at once instead
            of spinning.

    Raises:
        LoadError: the graph uses files or code outside itself.
    """
    if reach := reach_of(graph):
        raise LoadError(f"a graph of it {reach}, which bundles may not")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")  # its own format is checked less
    options.enable_mem_pattern = False  # ONNX Runtime would keep a plan for every shape of batches
    options.log_severity_level = ERRORS_ONLY
    return load_graph(graph, options, providers)
