"""Encoders of the catalogue against implementations that are not ours, with the same weights."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from innerloop_trainer.encoders import encoders
from innerloop_trainer.encoders.efficientnet_lite import LAST_LAYER
from innerloop_trainer.encoders.minilm import WEIGHTS
from innerloop_trainer.encoders.speech_embedding import NETWORK, SPECTROGRAM


def weights_and_graph(name: str) -> tuple[Mapping[str, Path], onnxruntime.InferenceSession]:
    encoder = encoders[name]()
    if not encoder.at_hand:
        pytest.skip(f"the weights are missing: {encoder.install}")
    return encoder.weights.find(name, encoder.install), onnxruntime.InferenceSession(encoder.read().graph)


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "size"), [(0, 224), (0, 97), (1, 240), (2, 260)])
def test_photographs_get_the_logits_of_another_implementation(variant: int, size: int) -> None:
    reference = pytest.importorskip("efficientnet_lite_pytorch", reason="pip install efficientnet-lite-pytorch")
    name = f"efficientnet-lite{variant}"
    files, graph = weights_and_graph(name)
    (file,) = files.values()
    network = reference.EfficientNet.from_name(name, image_size=size)
    network.load_state_dict(torch.load(file, weights_only=True))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, size, size)).astype(np.float32)
    images = (pixels - 127) / 128
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(images)).numpy()
        (features,) = graph.run([LAST_LAYER], {"images": images})
        found = network._fc(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert expected.std() > 1


def test_recordings_get_the_windows_of_the_two_graphs_run_one_after_the_other() -> None:
    files, graph = weights_and_graph("speech-embedding")
    spectrogram, network = (onnxruntime.InferenceSession(str(files[name])) for name in (SPECTROGRAM, NETWORK))
    levels = np.array([[32_767], [3_000], [30]])
    samples = (np.random.default_rng(0).uniform(-1, 1, (3, 20_123)) * levels).astype(np.int16)
    (found,) = graph.run(None, {"samples": samples.astype(np.float32) / 32_768})
    for recording, windows in zip(samples, found, strict=True):
        (bels,) = spectrogram.run(None, {"input": recording[None].astype(np.float32)})
        frames = bels[0, 0] / 10 + 2  # [frames, 32]
        cut = np.stack([frames[start : start + 76] for start in range(0, len(frames) - 75, 8)])
        (expected,) = network.run(None, {"input_1": cut[..., None]})
        np.testing.assert_allclose(windows, expected.reshape(len(cut), 96), atol=1e-4)


@pytest.mark.slow
def test_sentences_get_the_embeddings_of_pytorchs_transformer() -> None:
    files, graph = weights_and_graph("all-minilm-l6-v2")
    weights = load_file(files[WEIGHTS])
    random = np.random.default_rng(0)
    ids = random.integers(1000, 20_000, (4, 40))
    mask = (np.arange(40) < [[40], [13], [2], [1]]).astype(np.int64)
    (found,) = graph.run(None, {"input_ids": ids, "attention_mask": mask})
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # nested tensors are a prototype
        embedded = embed(weights, torch.from_numpy(ids))
        expected = bert(weights)(embedded, src_key_padding_mask=torch.from_numpy(mask == 0)).numpy()
    np.testing.assert_allclose(found[mask == 1], expected[mask == 1], atol=1e-4)


def embed(weights: Mapping[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    """Embeddings of words, places and of the first segment, normalised [N, L, H]."""
    name = "embeddings.{}_embeddings.weight"
    words = weights[name.format("word")][ids]
    x = words + weights[name.format("position")][: ids.shape[1]] + weights[name.format("token_type")][0]
    scale, shift = (weights[f"embeddings.LayerNorm.{part}"] for part in ("weight", "bias"))
    return nn.functional.layer_norm(x, x.shape[-1:], scale, shift, 1e-12)


def bert(weights: Mapping[str, torch.Tensor]) -> nn.Module:
    """PyTorch's own transformer with the weights of BERT."""
    layer = nn.TransformerEncoderLayer(384, 12, 1536, activation="gelu", layer_norm_eps=1e-12, batch_first=True)
    network = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
    state: dict[str, Any] = {}
    for index in range(6):
        ours, theirs = f"encoder.layer.{index}", f"layers.{index}"
        for kind in ("weight", "bias"):
            parts = [weights[f"{ours}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            state[f"{theirs}.self_attn.in_proj_{kind}"] = torch.cat(parts)
            for name, source in (
                ("self_attn.out_proj", "attention.output.dense"),
                ("norm1", "attention.output.LayerNorm"),
                ("linear1", "intermediate.dense"),
                ("linear2", "output.dense"),
                ("norm2", "output.LayerNorm"),
            ):
                state[f"{theirs}.{name}.{kind}"] = weights[f"{ours}.{source}.{kind}"]
    network.load_state_dict(state)
    return network.eval()
