"""Cell networks against Conv4, and against their description written out."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from innerloop_learner import InputSpec, LearnerSpec, build_learner
from innerloop_learner.acceleration import accelerated
from innerloop_learner.backbones import build_backbone
from innerloop_learner.backbones.cell import ends_of
from innerloop_learner.settings import SettingsError

IMAGE = (1, 16, 16)


def random_images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("downsample", ["max_pool", "stride"])
def test_four_blocks_without_cells_are_conv4(downsample: str) -> None:
    cell = build_backbone("cell", IMAGE, {"blocks": [{"width": 8, "downsample": downsample}] * 4})
    conv4 = build_backbone("conv4", IMAGE, {"width": 8, "downsample": downsample})
    params = cell.init(torch.Generator().manual_seed(0))
    expected = conv4.init(torch.Generator().manual_seed(0))
    assert params.keys() == expected.keys()
    x, weights = random_images(2, 3, *IMAGE), torch.ones(2, 3)
    torch.testing.assert_close(cell.apply(params, x, weights), conv4.apply(params, x, weights))
    assert cell.feature_shape == conv4.feature_shape


def test_a_cell_sums_its_edges_into_nodes() -> None:
    edges = ["conv3x3", "skip", "conv1x1", "none", "mean3x3", "skip"]
    block = {"width": 4, "entry": "conv1x1", "downsample": "mean_pool", "edges": edges}
    backbone = build_backbone("cell", IMAGE, {"blocks": [block], "norm": "none"})
    params = backbone.init(torch.Generator().manual_seed(0))
    params = {
        name: torch.randn(value.shape, generator=torch.Generator().manual_seed(2)) for name, value in params.items()
    }
    x = random_images(1, 2, *IMAGE)

    def convolved(y: torch.Tensor, name: str) -> torch.Tensor:
        weight = params[f"{name}.weight"]
        return F.conv2d(y, weight, params[f"{name}.bias"], padding=weight.shape[-1] // 2)

    first = F.avg_pool2d(convolved(x[0], "conv0"), 2).relu()
    second = convolved(first, "edge0.0to1").relu()
    third = (first + convolved(second, "edge0.1to2")).relu()
    last = (F.avg_pool2d(second, 3, stride=1, padding=1) + third).relu()
    found = backbone.apply(params, x, torch.ones(1, 2)).values
    torch.testing.assert_close(found[0], last.flatten(1))


def test_a_cell_that_nothing_passes_gives_zeros_that_can_be_differentiated() -> None:
    backbone = build_backbone("cell", IMAGE, {"blocks": [{"width": 4, "edges": ["none"]}]})
    params = {name: value.requires_grad_() for name, value in backbone.init(torch.Generator()).items()}
    features = backbone.apply(params, random_images(1, 2, *IMAGE), torch.ones(1, 2)).values
    assert not features.any()
    features.sum().backward()


def test_a_bundle_knows_what_its_blocks_leave_out() -> None:
    spec = LearnerSpec("protonet", InputSpec(IMAGE), backbone="cell", backbone_settings={"blocks": [{"width": 8}]})
    written = build_learner(spec).spec.backbone_settings["blocks"]
    assert written == [{"width": 8, "entry": "conv3x3", "downsample": "max_pool", "edges": []}]


def test_a_device_runs_it_as_it_is() -> None:
    learner = build_learner(LearnerSpec("maml", InputSpec(IMAGE), backbone="cell"))
    assert all(accelerated(learner, device) is learner for device in ("cpu", "cuda"))


def test_blocks_adapt_apart_by_their_names() -> None:
    blocks = [{"width": 4, "edges": ["conv1x1"]}] * 2
    settings = {"adapts": ["block1"], "steps": 1}
    spec = LearnerSpec(
        "partial-maml", InputSpec(IMAGE), backbone="cell", backbone_settings={"blocks": blocks}, settings=settings
    )
    learner = build_learner(spec)
    adapted = learner.adapted(learner.init(torch.Generator()))  # type: ignore[attr-defined]
    assert {name.partition(".")[0] for name in adapted} == {"conv1", "norm1", "edge1", "norm_edge1"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blocks": []}, "blocks must name one block at least"),
        (
            {"blocks": [{"edges": ["skip", "skip"]}]},
            "block 0: a cell has an edge between any two nodes, which makes 0,",
        ),
        ({"blocks": [{}, {"edges": ["conv5x5"]}]}, "block 1: edges must be a list, each none or skip or mean3x3 or"),
        ({"blocks": [{"wdth": 3}]}, "block 0 has no setting 'wdth'; it has: width, entry, downsample, edges"),
        ({"blocks": [{"width": 0}]}, "block 0: width must be at least 1, not 0"),
        ({"blocks": [{}] * 5}, "images of 16x16 are too small to be halved so often; leave some at none"),
        ({"blocks": [{"width": 28}], "norm": "group"}, "group norm needs"),
    ],
)
def test_descriptions_of_no_network_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        build_backbone("cell", IMAGE, settings)
    assert message in str(caught.value)


def test_every_pair_of_nodes_has_an_edge() -> None:
    assert ends_of(0) == []
    assert ends_of(6) == [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
