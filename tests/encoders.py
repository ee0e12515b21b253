"""Tiny frozen encoders: real ONNX graphs and a real tokenizer, of a few random numbers."""

import csv
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

WORDS = ("card", "lost", "stolen", "rate", "exchange", "euro", "top", "up", "failed", "transfer", "slow", "pin", "new")
SIZE = 8
"""Features of an encoder of texts."""
IMAGE_FEATURES = 6
AUDIO_FEATURES = 5

Shape = Sequence[int | str]


def tokenizer(**truncation: int) -> bytes:
    """Splits at spaces and knows WORDS; `max_length` is what its file says of truncation."""
    words = {word: index for index, word in enumerate(("[PAD]", "[UNK]", *WORDS))}
    made = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    if truncation:
        made.enable_truncation(**truncation)
    return made.to_str().encode()


def word_vectors() -> np.ndarray[Any, np.dtype[np.float32]]:
    """What the encoders of texts know of each token [V, SIZE]."""
    return np.random.default_rng(0).normal(size=(len(WORDS) + 2, SIZE)).astype(np.float32)


def token_encoder(tokens: Shape = ("N", "L"), *, mask: bool = False) -> bytes:
    """A vector for each token [N, L, SIZE]; with a mask, which it then leaves aside, or without."""
    inputs = {"input_ids": ("int64", tokens), **({"attention_mask": ("int64", tokens)} if mask else {})}
    nodes = [helper.make_node("Gather", ["vectors", "input_ids"], ["token_embeddings"])]
    return graph(nodes, inputs, "token_embeddings", (*tokens, SIZE), {"vectors": word_vectors()})


def sentence_encoder(tokens: Shape = ("N", "L")) -> bytes:
    """The sum of a text's token vectors [N, SIZE], padding included: there is no mask."""
    axis = {"vectors": word_vectors(), "axis": np.array([1])}
    nodes = [
        helper.make_node("Gather", ["vectors", "input_ids"], ["tokens"]),
        helper.make_node("ReduceSum", ["tokens", "axis"], ["sentence_embedding"], keepdims=0),
    ]
    return graph(nodes, {"input_ids": ("int64", tokens)}, "sentence_embedding", (tokens[0], SIZE), axis)


def image_encoder(shape: Shape = ("N", 1, 8, 8), dtype: str = "float", *, maps: bool = False) -> bytes:
    """Rectified convolutions of an image, averaged over it [N, IMAGE_FEATURES] or as they are."""
    kernel = np.random.default_rng(1).normal(size=(IMAGE_FEATURES, int(shape[1]), 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "kernel"], ["convolved"]),
        helper.make_node("Relu", ["convolved"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["means"]),
        helper.make_node("Flatten", ["means"], ["features"]),
    ]
    output = ("maps", (shape[0], IMAGE_FEATURES, "h", "w")) if maps else ("features", (shape[0], IMAGE_FEATURES))
    return graph(nodes, {"pixels": (dtype, shape)}, *output, {"kernel": kernel})


def audio_encoder(shape: Shape = ("N", "samples"), form: str = "windows") -> bytes:
    """Mean levels of audio in windows of 100 samples: a vector for each window [N, W, AUDIO_FEATURES], or maps of them.

    Args:
        shape: shape of the input.
        form: "windows", or "maps" [N, 1, W, AUDIO_FEATURES].
    """
    filters = np.random.default_rng(3).normal(size=(AUDIO_FEATURES, 1, 100)).astype(np.float32)
    nodes = [
        helper.make_node("Unsqueeze", ["samples", "one"], ["channel"]),
        helper.make_node("Conv", ["channel", "filters"], ["bands"], strides=[100]),
        helper.make_node("Transpose", ["bands"], ["windows"], perm=[0, 2, 1]),
        helper.make_node("Unsqueeze", ["windows", "one"], ["maps"]),
    ]
    shapes = {"windows": (shape[0], "W", AUDIO_FEATURES), "maps": (shape[0], 1, "W", AUDIO_FEATURES)}
    constants = {"filters": filters, "one": np.array([1])}
    return graph(nodes, {"samples": ("float", shape)}, form, shapes[form], constants)


def slow_encoder(size: int = 1024, products: int = 6) -> bytes:
    """Images to one feature, by products of matrices as large as the image's mean: a tenth of a second for each."""
    constants = {
        "axes": np.array([1, 2, 3]),
        "shape": np.array([1, size, size]),
        "matrix": np.full((size, size), 1 / size, np.float32),
        "sides": np.array([1, 2]),
    }
    nodes = [
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "sides"], ["scalar"]),
        helper.make_node("Expand", ["scalar", "shape"], ["product0"]),
        *(
            helper.make_node("MatMul", [f"product{index}", "matrix"], [f"product{index + 1}"])
            for index in range(products)
        ),
        helper.make_node("ReduceMean", [f"product{products}", "sides"], ["means"], keepdims=0),
        helper.make_node("Unsqueeze", ["means", "axis"], ["features"]),
    ]
    constants["axis"] = np.array([1])
    return graph(nodes, {"pixels": ("float", ("N", 1, 8, 8))}, "features", ("N", 1), constants)


def entangled_encoder() -> bytes:
    """Images less the mean image of their batch: their features depend on one another."""
    axis = {"axis": np.array([0])}
    nodes = [
        helper.make_node("ReduceMean", ["pixels", "axis"], ["mean"]),
        helper.make_node("Sub", ["pixels", "mean"], ["centred"]),
        helper.make_node("Flatten", ["centred"], ["features"]),
    ]
    return graph(nodes, {"pixels": ("float", ("N", 1, 8, 8))}, "features", ("N", 64), axis)


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[str, Shape]],
    output: str,
    shape: Shape,
    constants: Mapping[str, np.ndarray[Any, Any]],
) -> bytes:
    """A model of nodes, checked."""
    types = {"int64": TensorProto.INT64, "float": TensorProto.FLOAT, "uint8": TensorProto.UINT8}
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "encoder",
            [helper.make_tensor_value_info(name, types[kind], size) for name, (kind, size) in inputs.items()],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def write_texts(file: Path, classes: int = 12, texts: int = 12) -> Path:
    """A CSV file of classes that are told apart by two words each, among others."""
    random = np.random.default_rng(2)
    pairs = list(itertools.combinations(WORDS, 2))[::6][:classes]
    rows = [
        (" ".join(random.permutation([*pair, *pair, *random.choice(WORDS, 1 + index % 3)])), "-".join(pair))
        for pair in pairs
        for index in range(texts)
    ]
    with file.open("w", newline="") as content:
        csv.writer(content).writerows([("text", "intent"), *rows])
    return file
