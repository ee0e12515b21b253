"""A graph in ONNX Runtime."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from innerloop_learner.encoders.errors import EncoderError
from innerloop_learner.self_contained import reach_of

Array = NDArray[Any]

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@dataclass(frozen=True)
class Computing:
    """Where and how a graph computes.

    Attributes:
        threads: on a CPU; as many as it has cores when zero.
        cuda: whether to use a GPU, if ONNX Runtime can.
    """

    threads: int = 0
    cuda: bool = False


class Session:
    """A graph, ready to compute; may be used from several threads at once.

    Args:
        graph: content of the ONNX file.
        computing: where and how.

    Attributes:
        inputs: shape by name, None where a size is free; and the element type, as ONNX Runtime calls it.
        outputs: names.

    Raises:
        EncoderError: ONNX Runtime is missing or refuses the graph.
    """

    def __init__(self, graph: bytes, computing: Computing) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise EncoderError('encoders need ONNX Runtime; pip install "innerloop[encoder]"') from error
        if reach := reach_of(graph):
            raise EncoderError(f"the encoder {reach}; save it as one whole graph")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = computing.threads
        options.log_severity_level = 3  # what goes wrong comes back as an exception
        # Threads that spin while they wait take time from whatever else computes here.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.load_model_format", "ONNX")  # not its own, of which it checks less
        gpu = [CUDA] if computing.cuda and CUDA in onnxruntime.get_available_providers() else []
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=[*gpu, CPU])
        except Exception as error:  # ONNX Runtime's errors have no base of their own
            raise EncoderError(f"ONNX Runtime refuses the encoder ({_first_line(error)})") from error
        self.inputs: Mapping[str, tuple[tuple[int | None, ...], str]] = {
            each.name: (tuple(size if isinstance(size, int) else None for size in each.shape), each.type)
            for each in self._session.get_inputs()
        }
        self.outputs: Sequence[str] = [each.name for each in self._session.get_outputs()]

    def run(self, output: str, inputs: Mapping[str, Array]) -> NDArray[np.float32]:
        """One output, as float32.

        Raises:
            EncoderError: the graph does not take these inputs.
        """
        try:
            (value,) = self._session.run([output], dict(inputs))
        except Exception as error:  # as above
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
            raise EncoderError(f"the encoder fails on {shapes} ({_first_line(error)})") from error
        return np.asarray(value, np.float32)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
