"""ResNet-12, ResNet-18 and the vision transformer, against PyTorch's own layers, and with every norm and method."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from bundles import small_settings
from cases import IMAGE, TINY, TRAIN_CLASSES, Case
from torch import Tensor, nn

from innerloop_learner import InputSpec, LearnerSpec, Params, build_learner
from innerloop_learner.backbones import Backbone, build_backbone
from innerloop_learner.learner import methods
from innerloop_learner.norms import norms
from innerloop_learner.objectives import Stage
from innerloop_learner.settings import SettingsError

TASKS, EXAMPLES = 2, 3
OFTEN = {"maml", "r2d2", "relation"}
"""Methods that `make test` tries on every backbone: one that adapts weights, one of features, and one of maps."""

each_backbone = pytest.mark.parametrize("name", TINY)


def made(name: str, shape: tuple[int, ...] = IMAGE, **settings: Any) -> Backbone:
    return build_backbone(name, shape, {**TINY[name], **settings})


def params_of(backbone: Backbone, seed: int = 0) -> Params:
    """Parameters away from their initial values."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value.double() + 0.1 * torch.rand(value.shape, generator=generator, dtype=torch.float64)
        for name, value in backbone.init(generator).items()
    }


def images(seed: int = 1, shape: tuple[int, ...] = IMAGE) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(TASKS, EXAMPLES, *shape, generator=generator, dtype=torch.float64)


def embedded(backbone: Backbone, params: Params, x: Tensor, **given: Any) -> Tensor:
    return backbone.apply(params, x, torch.ones(x.shape[:2], dtype=x.dtype), **given).values


def normed(params: Params, name: str, x: Tensor, stride: int = 1) -> Tensor:
    """A convolution and batch normalisation of the bundle, by PyTorch's own functions."""
    weight = params[f"{name}.weight"]
    y = F.conv2d(x, weight, params[f"{name}.bias"], stride, weight.shape[-1] // 2)
    moments = (params[f"{name}.norm.running_{moment}"] for moment in ("mean", "variance"))
    return F.batch_norm(y, *moments, params[f"{name}.norm.weight"], params[f"{name}.norm.bias"])


def resnet12_by_hand(params: Params, x: Tensor) -> Tensor:
    for block in range(4):
        y = x
        for place in range(3):
            y = normed(params, f"block{block}.conv{place}", y)
            y = F.leaky_relu(y, 0.1) if place < 2 else y
        x = F.max_pool2d(F.leaky_relu(y + normed(params, f"block{block}.shortcut", x), 0.1), 2)
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


def resnet18_by_hand(params: Params, x: Tensor, *, large: bool) -> Tensor:
    x = F.relu(normed(params, "stem0", x, 2 if large else 1))
    x = F.max_pool2d(x, 2) if large else x
    for block in range(8):
        stride = 2 if block in (2, 4, 6) else 1
        y = F.relu(normed(params, f"block{block}.conv0", x, stride))
        shortcut = f"block{block}.shortcut"
        rest = normed(params, shortcut, x, stride) if f"{shortcut}.weight" in params else x
        x = F.relu(normed(params, f"block{block}.conv1", y) + rest)
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


def test_resnet12_is_what_pytorch_computes() -> None:
    backbone, x = made("resnet12", (3, 21, 19), norm="batch"), images(shape=(3, 21, 19))
    params = params_of(backbone)
    expected = resnet12_by_hand(params, x.flatten(0, 1)).view(TASKS, EXAMPLES, -1)
    torch.testing.assert_close(embedded(backbone, params, x), expected)


@pytest.mark.parametrize("stem", ["large", "small"])
def test_resnet18_is_what_pytorch_computes(stem: str) -> None:
    shape = (3, 32, 35) if stem == "large" else (3, 16, 15)
    backbone, x = made("resnet18", shape, norm="batch", stem=stem), images(shape=shape)
    params = params_of(backbone)
    expected = resnet18_by_hand(params, x.flatten(0, 1), large=stem == "large").view(TASKS, EXAMPLES, -1)
    torch.testing.assert_close(embedded(backbone, params, x), expected)


@pytest.mark.parametrize("pooling", ["mean", "token"])
def test_the_transformer_is_what_pytorch_computes(pooling: str) -> None:
    backbone, x = made("vit", pooling=pooling, norm="position"), images()
    params = params_of(backbone)
    tokens = F.unfold(x.flatten(0, 1), 8, stride=8).transpose(1, 2) @ params["patches.weight"].T
    tokens = tokens + params["patches.bias"]
    if pooling == "token":
        tokens = torch.cat([params["class_token"].expand(len(tokens), 1, -1), tokens], 1)
    tokens = tokens + params["positions"]
    for block in range(2):
        layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True, norm_first=True).double()
        theirs = {
            "self_attn.in_proj_": "heads.",
            "self_attn.out_proj.": "joined.",
            "linear1.": "hidden.",
            "linear2.": "out.",
            "norm1.": "norm0.",
            "norm2.": "norm1.",
        }
        layer.load_state_dict(
            {
                their + part: params[f"block{block}.{our}{part}"]
                for their, our in theirs.items()
                for part in ("weight", "bias")
            }
        )
        tokens = layer(tokens)
    tokens = F.layer_norm(tokens, (8,), params["norm.weight"], params["norm.bias"])
    expected = (tokens[:, 0] if pooling == "token" else tokens.mean(1)).view(TASKS, EXAMPLES, -1)
    torch.testing.assert_close(embedded(backbone, params, x), expected)


@each_backbone
def test_the_large_network_is_the_fields(name: str) -> None:
    usual = build_backbone(name, (3, 84, 84), {"norm": "batch"})
    learned = usual.init(torch.Generator()).items()
    weights = sum(value.numel() for key, value in learned if key.endswith(".weight") and value.dim() == 4)
    assert {"resnet12": (640, 12_414_848), "resnet18": (512, 11_166_912), "vit": (192, 0)}[name] == (
        usual.features,
        weights,
    )


@each_backbone
@pytest.mark.parametrize("norm", list(norms))
def test_weights_of_each_task_give_what_each_task_alone_gives(name: str, norm: str) -> None:
    backbone, x = made(name, norm=norm), images()
    each = [params_of(backbone, seed) for seed in range(TASKS)]
    together = embedded(backbone, {key: torch.stack([params[key] for params in each]) for key in each[0]}, x)
    for task, params in enumerate(each):
        torch.testing.assert_close(together[task : task + 1], embedded(backbone, params, x[task : task + 1]))
    # Networks without a norm and with small weights hardly tell examples apart.
    assert (together - together.mean(1, keepdim=True)).abs().max() > 1e-3


@each_backbone
@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in methods]
)
def test_every_method_learns_and_answers_with_every_backbone(name: str, method: str) -> None:
    if "classification" not in methods[method].info.tasks:
        pytest.skip("takes no classes of images")
    spec = LearnerSpec(
        method,
        InputSpec(IMAGE),
        max_ways=4,
        train_classes=TRAIN_CLASSES,
        backbone=name,
        backbone_settings={**TINY[name], "norm": "batch"},
        settings=small_settings(method, rate=0.05),
    )
    case = Case(spec)
    params, episodes = case.params(torch.float32), case.episodes().to(torch.float32)
    learned = {key: value.requires_grad_() for key, value in params.items() if key not in case.learner.buffers()}
    outcome = case.objective(params, episodes, Stage())
    gradients = torch.autograd.grad(outcome.loss, list(learned.values()), allow_unused=True)
    assert outcome.loss.isfinite()
    if method != "scratch":
        assert any(found is not None and found.abs().max() > 0 for found in gradients)
    with torch.no_grad():
        state = case.learner.adapt(params, episodes.support).state
        assert case.learner.predict(params, state, episodes.query)[..., :3].isfinite().all()


@pytest.mark.parametrize(
    ("name", "shape", "settings", "says"),
    [
        ("resnet12", (3,), {}, "takes images"),
        ("resnet18", (3,), {}, "takes images"),
        ("vit", (3,), {}, "takes images"),
        ("resnet12", (3, 15, 40), {}, "too small to halve four times"),
        ("resnet12", (3, 32, 32), {"widths": [4, 4]}, "four numbers"),
        ("resnet12", (3, 32, 32), {"drop": 1.0}, "at most 0.9"),
        ("resnet18", (3, 28, 28), {"stem": "large"}, "set stem to small"),
        ("resnet18", (3, 28, 28), {"widths": [4, 4, 0, 4]}, "four numbers"),
        ("vit", (3, 30, 32), {}, "do not divide into patches of 8 pixels"),
        ("vit", (3, 32, 32), {"heads": 3}, "3 heads do not divide a width of 8"),
        ("vit", (3, 32, 32), {"norm": "best"}, "best"),
    ],
)
def test_mistakes_are_named(name: str, shape: tuple[int, ...], settings: dict[str, Any], says: str) -> None:
    with pytest.raises((SettingsError, KeyError), match=says):
        made(name, shape, **settings)


def test_position_norm_is_the_layer_norm_of_each_place() -> None:
    norm = norms["position"]("n", 5)
    x = torch.randn(2, 3, 5, 4, 4, dtype=torch.float64)
    scale, shift = torch.rand(5, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    found, statistics = norm.apply({"n.weight": scale, "n.bias": shift}, x, torch.ones(2, 3), {})
    expected = F.layer_norm(x.movedim(2, -1), (5,), scale, shift).movedim(-1, 2)
    torch.testing.assert_close(found, expected)
    assert not statistics
    assert build_learner(replace(SMALL_SPEC, backbone_settings={**TINY["vit"], "norm": "position"})).extends


SMALL_SPEC = LearnerSpec("protonet", InputSpec(IMAGE), max_ways=4, backbone="vit")
