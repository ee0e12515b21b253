"""speech_embedding, an encoder of spoken words.

Source: Lin, Kilgour, Roblek and Sharifi, Training Keyword Spotters with Limited and Synthesized Speech Data, ICASSP
2020. The package openwakeword holds the network and the spectrogram in front of it as two graphs.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from innerloop_learner.encoders import EncoderOptions
from innerloop_trainer.encoders.pretrained import EncoderCard, PretrainedEncoder, encoders
from innerloop_trainer.encoders.weights import WeightsPackage

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, TensorProto

RATE = 16_000
"""Sampling rate of its inputs, in Hz."""
SECONDS = 1.44
"""Usual length of a recording in seconds, with silence around it: 9 windows. Averaged by thirds, they tell spoken
digits apart better than averaged as a whole, and than those of 1.6 s or 2 s (benchmarks/encoders/ablation.py)."""
WINDOW_FEATURES = 96
"""Features of each window of 0.76 s."""
LEVEL = 32_768.0
"""Factor from samples of -1 to 1 to those of 16 bits, which the spectrogram's graph expects."""
RANGE = 80.0
"""Range of the spectrogram below its maximum, in dB."""

SPECTROGRAM, NETWORK = (f"resources/models/{name}.onnx" for name in ("melspectrogram", "embedding_model"))


@encoders.register("speech-embedding")
class SpeechEmbedding(PretrainedEncoder):
    """One graph, from samples to a vector of 96 features for each window of 0.76 s, every 0.08 s.

    The two graphs are joined, with two changes that leave the features of a recording by itself as they are. The
    maximum that limits the spectrogram's range is taken for each recording and not over the batch. The network, whose
    convolutions over time have no padding and whose strides over time multiply to the 8 frames between windows, runs
    once over the whole spectrogram and not once over each window.
    """

    card = EncoderCard(
        name="speech-embedding",
        form="audio",
        summary="Google's speech_embedding, a small convolutional network for spoken words",
        megabytes=2.4,
        features=3 * WINDOW_FEATURES,
        licence="Apache-2.0",
        trained_on="keywords in the speech of YouTube videos",
        paper="Lin, Kilgour, Roblek and Sharifi, ICASSP 2020",
        extra="speech",
    )
    weights = WeightsPackage(
        "openwakeword",
        "openwakeword",
        {
            SPECTROGRAM: "ba2b0e0f8b7b875369a2c89cb13360ff53bac436f2895cced9f479fa65eb176f",
            NETWORK: "ba754db3cd768a524c655ea90655ee5e6055a43b8dfd29366a11e93716ae9e51",
        },
    )
    options = EncoderOptions(rate=RATE, shape=(round(RATE * SECONDS),), pooling="thirds")

    def convert(self, files: Mapping[str, Path]) -> bytes:
        """See PretrainedEncoder.convert."""
        import onnx
        from onnx import TensorProto, checker, compose, helper

        spectrogram = compose.add_prefix_graph(onnx.load(files[SPECTROGRAM]).graph, "spectrogram/")
        network = compose.add_prefix_graph(onnx.load(files[NETWORK]).graph, "network/")
        graph = helper.make_graph(
            [*_decibels(spectrogram), *_scaled(), *_windows(network)],
            "encoder",
            [helper.make_tensor_value_info("samples", TensorProto.FLOAT, ("N", "samples"))],
            [helper.make_tensor_value_info("windows", TensorProto.FLOAT, ("N", "W", WINDOW_FEATURES))],
            [*spectrogram.initializer, *network.initializer, *_constants()],
        )
        _drop_unused(graph)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
        checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))


def _decibels(graph: "GraphProto") -> "list[NodeProto]":
    """The spectrogram in dB [N, 1, frames, 32], at most 80 dB below the maximum of its recording."""
    from onnx import helper

    # The last five nodes limit the range below the maximum over the whole batch.
    *nodes, largest, _, _, _, _ = graph.node
    return [
        helper.make_node("Mul", ["samples", "level"], [graph.input[0].name]),
        *nodes,
        helper.make_node("ReduceMax", [largest.input[0]], ["largest"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Sub", ["largest", "range"], ["least"]),
        helper.make_node("Max", [largest.input[0], "least"], ["decibels"]),
    ]


def _scaled() -> "list[NodeProto]":
    """The spectrogram as the network was trained on it, with one more band of zeros at both ends."""
    from onnx import helper

    return [
        helper.make_node("Div", ["decibels", "ten"], ["bels"]),
        helper.make_node("Add", ["bels", "two"], ["spectrogram"]),
        helper.make_node("Pad", ["spectrogram", "bands"], ["padded"]),
    ]


def _windows(graph: "GraphProto") -> "list[NodeProto]":
    """The network, from the spectrogram on; its first and last nodes bring one window into and out of its layout."""
    from onnx import helper

    _, _, *nodes, last = graph.node
    nodes[0].input[0] = "padded"
    return [
        *nodes,
        helper.make_node("Squeeze", [last.input[0], "bands_axis"], ["columns"]),  # [N, 96, W]
        helper.make_node("Transpose", ["columns"], ["windows"], perm=[0, 2, 1]),
    ]


def _drop_unused(graph: "GraphProto") -> None:
    """Drop the constants of nodes that were left out, which ONNX Runtime would warn of."""
    used = {name for node in graph.node for name in node.input}
    kept = [each for each in graph.initializer if each.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _constants() -> "list[TensorProto]":
    import numpy as np
    from onnx import numpy_helper

    numbers = {"level": LEVEL, "range": RANGE, "ten": 10.0, "two": 2.0}
    return [
        *(numpy_helper.from_array(np.array(value, np.float32), name) for name, value in numbers.items()),
        numpy_helper.from_array(np.array([0, 0, 0, 1, 0, 0, 0, 1]), "bands"),
        numpy_helper.from_array(np.array([3]), "bands_axis"),
    ]
