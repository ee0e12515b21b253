"""A small vision transformer."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.backbones.backbone import Backbone, Normalise, backbones, check_images
from innerloop_learner.layers import glorot, linear
from innerloop_learner.norms import Norm, norms
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Params

POSITIONS, CLASS_TOKEN, LAST_NORM = "positions", "class_token", "norm"

SPREAD = 0.02
"""Standard deviation of the embeddings of positions and of the class token at first (Dosovitskiy et al. 2021)."""


@dataclass(frozen=True)
class ViTSettings:
    """Settings of the vision transformer."""

    patch: int = setting(4, "height and width of a patch, in pixels", least=1)
    width: int = setting(192, "features of every token", least=1)
    depth: int = setting(6, "blocks", least=1)
    heads: int = setting(3, "heads of attention, which divide the width", least=1)
    expansion: int = setting(4, "width of a block's hidden layer, in widths of a token", least=1)
    pooling: Literal["mean", "token"] = setting(
        "mean", "what the features are: the mean of all tokens, or a class token"
    )
    norm: str = setting("position", "registered name of the norm before attention and perceptron, and at the end")


@backbones.register("vit")
class ViT(Backbone):
    """Attention between patches of an image, pre-norm (Dosovitskiy et al. 2021).

    Tokens z are linear maps of patches plus an embedding of their positions. With norms n and heads of queries, keys
    and values q, k, v of d features each, a block is

        z <- z + W concat_h softmax(q_h k_h' / sqrt(d)) v_h,   q, k, v = U n(z)
        z <- z + V gelu(M n(z))

    and features are the mean of n(z), or n of a token that was added.

    Raises:
        ValueError: the input is not an image that patches divide, or heads do not divide the width.
    """

    settings_class = ViTSettings
    settings: ViTSettings

    def __init__(self, input_shape: tuple[int, ...], settings: ViTSettings) -> None:
        super().__init__(input_shape, settings)
        check_images("vit", input_shape)
        channels, height, width = input_shape
        if height % settings.patch or width % settings.patch:
            raise ValueError(f"images of {height}x{width} do not divide into patches of {settings.patch} pixels")
        if settings.width % settings.heads:
            raise ValueError(f"{settings.heads} heads do not divide a width of {settings.width}")
        self._grid = (height // settings.patch, width // settings.patch)
        self._patch = channels * settings.patch**2
        self._token = settings.pooling == "token"
        self.features = settings.width
        self.depth = settings.depth
        names = [f"block{block}.norm{place}" for block in range(settings.depth) for place in (0, 1)]
        self.norms = [norms[settings.norm](name, settings.width) for name in (*names, LAST_NORM)]

    def init(self, generator: torch.Generator) -> Params:
        """See Backbone.init."""
        width, hidden = self.features, self.features * self.settings.expansion
        shapes = {"patches": (width, self._patch)}
        for block in range(self.settings.depth):
            shapes[f"block{block}.heads"] = (3 * width, width)
            shapes[f"block{block}.joined"] = (width, width)
            shapes[f"block{block}.hidden"] = (hidden, width)
            shapes[f"block{block}.out"] = (width, hidden)
        params: Params = {}
        for name, (outputs, inputs) in shapes.items():
            params[f"{name}.weight"] = glorot(generator, outputs, inputs)
            params[f"{name}.bias"] = torch.zeros(outputs)
        params[POSITIONS] = SPREAD * torch.randn(math.prod(self._grid) + self._token, width, generator=generator)
        if self._token:
            params[CLASS_TOKEN] = SPREAD * torch.randn(width, generator=generator)
        for norm in self.norms:
            params.update(norm.init())
        return params

    def _layers(self, params: Params, x: Tensor, normalise: Normalise) -> Tensor:
        z = self._tokens(params, x) if self.begins else x  # [T, N, L, D]
        for block in self.span:
            first, second = self.norms[2 * block : 2 * block + 2]
            z = z + self._attended(params, f"block{block}", _by_channels(first, z, normalise))
            hidden = _linear(params, f"block{block}.hidden", _by_channels(second, z, normalise))
            z = z + _linear(params, f"block{block}.out", F.gelu(hidden))
        if not self.ends:
            return z
        z = _by_channels(self.norms[-1], z, normalise)
        features = z[:, :, 0] if self._token else z.mean(2)
        return features.to(params["patches.weight"].dtype)  # products may leave another type in low precision

    def _block_of(self, name: str) -> int:
        """See Backbone._block_of; the last norm comes behind the last block."""
        return self.depth - 1 if name.startswith(f"{LAST_NORM}.") else super()._block_of(name)

    def _tokens(self, params: Params, x: Tensor) -> Tensor:
        """Tokens [T, N, L, D] of images x [T, N, C, H, W]."""
        tasks, examples, channels = x.shape[:3]
        (rows, columns), patch = self._grid, self.settings.patch
        patches = x.reshape(tasks, examples, channels, rows, patch, columns, patch).permute(0, 1, 3, 5, 2, 4, 6)
        z = _linear(params, "patches", patches.reshape(tasks, examples, rows * columns, self._patch))
        if self._token:
            token = params[CLASS_TOKEN].view(-1, 1, 1, self.features)  # of [D], or of [T, D]
            z = torch.cat([token.expand(tasks, examples, 1, -1), z], 2)
        positions = params[POSITIONS]  # [L, D] or [T, L, D]
        return z + (positions if positions.dim() == 2 else positions.unsqueeze(1))

    def _attended(self, params: Params, block: str, z: Tensor) -> Tensor:
        """What attention adds to tokens, for these normalised ones [T, N, L, D]."""
        tasks, examples, tokens, width = z.shape
        heads = self.settings.heads
        parts = _linear(params, f"{block}.heads", z).view(tasks, examples, tokens, 3, heads, width // heads)
        query, key, value = parts.permute(3, 0, 1, 4, 2, 5)  # [T, N, heads, L, d] each
        # Written out, since fused attention has no second derivative.
        shares = (query @ key.transpose(-2, -1) / math.sqrt(width // heads)).softmax(-1)
        joined = (shares @ value).transpose(2, 3).reshape(z.shape)
        return _linear(params, f"{block}.joined", joined)


def _linear(params: Params, layer: str, z: Tensor) -> Tensor:
    """The layer's affine map of tokens [T, N, L, I], [T, N, L, O]."""
    y = linear(z.flatten(1, 2), params[f"{layer}.weight"], params[f"{layer}.bias"])
    return y.view(*z.shape[:3], -1)


def _by_channels(norm: Norm, z: Tensor, normalise: Normalise) -> Tensor:
    """Normalise tokens [T, N, L, D]; norms take channels third."""
    return normalise(norm, z.transpose(2, 3)).transpose(2, 3)
