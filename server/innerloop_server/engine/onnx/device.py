"""Devices of ONNX Runtime: how graphs run on one, and where task states lie between two runs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import onnxruntime

from innerloop_learner.self_contained import reach_of
from innerloop_server.domain.tasks import Array
from innerloop_server.engine.interface import LoadError

Session = Any
"""An `onnxruntime.InferenceSession`; the package has no types."""

Tensor = Any
"""A tensor where the device keeps it, an array or an `OrtValue`."""

Tensors = dict[str, Tensor]

ERRORS_ONLY = 3
CPU = "CPUExecutionProvider"


class Outputs(NamedTuple):
    """What a graph gave.

    Attributes:
        kept: by name, where the device keeps them.
        read: in the host's memory.
    """

    kept: Tensors
    read: list[Array]


class OnnxDevice(ABC):
    """Somewhere to run graphs.

    Attributes:
        name: "cpu", or for example "cuda:0".
        lanes: batches that run side by side without taking time from each other.
        threads: threads that feed it.
        largest_batch: tasks beyond which larger batches gain nothing.
        usual_batch: tasks up to which batches are tried out beforehand.
    """

    name: str
    lanes: int
    threads: int
    largest_batch: int
    usual_batch: int

    @abstractmethod
    def session(self, graph: bytes) -> Session:
        """A graph ready to run, by any number of threads at a time; raises what ONNX Runtime raises if it can't be."""

    @abstractmethod
    def padded(self, size: int) -> int:
        """What a batch of that many tasks or examples is padded to."""

    @abstractmethod
    def run(
        self, session: Session, inputs: Mapping[str, Array], state: Tensors, keep: Sequence[str], read: Sequence[str]
    ) -> Outputs:
        """Run a graph.

        Args:
            session: the graph.
            inputs: from the host's memory.
            state: further inputs, from where the device keeps them.
            keep: outputs to keep on the device.
            read: outputs to bring to the host's memory.
        """

    @abstractmethod
    def split(self, batch: Tensors, tasks: int) -> list[Tensors]:
        """The first of a batch of states [T, ...], one by one [1, ...], in memory of their own."""

    @abstractmethod
    def join(self, states: Sequence[Tensors], tasks: int) -> Tensors:
        """States [1, ...] as one batch of so many tasks; the first stands in for those that miss."""

    @abstractmethod
    def to_host(self, state: Tensors) -> dict[str, Array]:
        """A copy in the host's memory."""

    @abstractmethod
    def from_host(self, state: Mapping[str, Array]) -> Tensors:
        """What `to_host` was given."""

    @abstractmethod
    def shape(self, tensor: Tensor) -> tuple[int, ...]:
        """Of a tensor that the device keeps."""

    @abstractmethod
    def dtype(self, tensor: Tensor) -> str:
        """Name of the element type of a tensor that the device keeps."""

    @abstractmethod
    def size_bytes(self, tensor: Tensor) -> int:
        """Of a tensor that the device keeps."""


def filled(states: Sequence[Tensors], tasks: int) -> list[Tensors]:
    """States of so many tasks, the first standing in for those that miss."""
    return [*states, *[states[0]] * (tasks - len(states))]


def make_session(graph: bytes, providers: Sequence[Any], threads: int) -> Session:
    """A graph ready to run.

    Args:
        graph: an ONNX model.
        providers: what runs its operators, by preference.
        threads: CPU threads of one operator. Operators run one after another, and threads that wait sleep at once
            instead of spinning.

    Raises:
        LoadError: the graph reaches beyond itself. What else keeps it from running, ONNX Runtime raises.
    """
    if reach := reach_of(graph):
        raise LoadError(f"a graph of it {reach}, which bundles may not")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")  # not its own, of which it checks less
    options.enable_mem_pattern = False  # batches have many shapes, and a plan is kept for each
    options.log_severity_level = ERRORS_ONLY
    return onnxruntime.InferenceSession(graph, options, providers=providers)
