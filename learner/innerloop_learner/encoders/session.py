"""A graph in ONNX Runtime."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from innerloop_learner.encoders.errors import EncoderError
from innerloop_learner.run_limit import limited_run, load_graph
from innerloop_learner.self_contained import reach_of

Array = NDArray[Any]

CPU_BATCH, GPU_BATCH = 8, 32
"""Most examples that a graph computes at a time. On a CPU more were no faster (photographs, sentences and speech on one
core), and 32 photographs took 354 MiB of memory where 8 took 78."""

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@dataclass(frozen=True)
class Computing:
    """The hardware that a graph computes on.

    Attributes:
        threads: number of threads on the CPU; zero for one per core.
        cuda: whether to use a GPU, if ONNX Runtime can.
    """

    threads: int = 0
    cuda: bool = False


class Session:
    """A graph, ready to compute; may be used from several threads at once.

    Args:
        graph: content of the ONNX file.
        computing: hardware to compute on.

    Attributes:
        inputs: shape and element type of each input, by name. None stands for a free size, and types have ONNX
            Runtime's names.
        outputs: names of the outputs.
        batch: most examples to compute at a time.

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
        options.log_severity_level = 4  # errors are raised anyway
        # Threads that spin while they wait take time from everything else that computes here.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.load_model_format", "ONNX")  # its own format is checked less
        gpu = [CUDA] if computing.cuda and CUDA in onnxruntime.get_available_providers() else []
        try:
            self._session = load_graph(graph, options, [*gpu, CPU])
        except Exception as error:  # ONNX Runtime's errors have no base class
            raise EncoderError("ONNX Runtime refuses the encoder", _first_line(error)) from error
        self.batch = GPU_BATCH if gpu else CPU_BATCH
        self.inputs: Mapping[str, tuple[tuple[int | None, ...], str]] = {
            each.name: (tuple(size if isinstance(size, int) else None for size in each.shape), each.type)
            for each in self._session.get_inputs()
        }
        self.outputs: Sequence[str] = [each.name for each in self._session.get_outputs()]

    def run(self, output: str, inputs: Mapping[str, Array]) -> NDArray[np.float32]:
        """Run the graph, and return one output as float32.

        Raises:
            EncoderError: the graph does not take these inputs, or takes too long.
        """
        try:
            with limited_run() as options:
                (value,) = self._session.run([output], dict(inputs), options)
        except Exception as error:  # as above
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
            raise EncoderError(f"the encoder fails on {shapes}", _first_line(error)) from error
        return np.asarray(value, np.float32)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
