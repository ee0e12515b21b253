"""DropBlock: what is dropped, and that nothing is while learners adapt or serve."""

import pytest
import torch
from bundles import small_settings
from cases import IMAGE, TINY, TRAIN_CLASSES, Case
from torch import Tensor

from innerloop_learner import InputSpec, LearnerSpec
from innerloop_learner.backbones.drop_block import drop_block, drop_keys, dropping
from innerloop_learner.objectives import Stage

SHARE = 0.2


def case(method: str = "protonet", norm: str = "batch") -> Case:
    settings = {**TINY["resnet12"], "norm": norm, "drop": 0.5}
    spec = LearnerSpec(
        method,
        InputSpec(IMAGE),
        max_ways=4,
        train_classes=TRAIN_CLASSES,
        backbone="resnet12",
        backbone_settings=settings,
        settings=small_settings(method, rate=0.05),
    )
    return Case(spec)


def dropped(x: Tensor, size: int, seed: int = 3, layer: str = "a") -> Tensor:
    params = dropping({"w": torch.zeros(1)}, torch.tensor([seed]), torch.tensor([SHARE]))
    keys = drop_keys(params, x)
    assert keys is not None
    return drop_block(params, torch.ones_like(x), keys, layer, size)


def maps(tasks: int = 2, examples: int = 4, channels: int = 50, side: int = 8) -> Tensor:
    shape = (tasks, examples, channels, side, side)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(("size", "off"), [(1, 0.01), (2, 0.04), (3, 0.05)])
def test_about_the_given_share_is_dropped_in_whole_squares(size: int, off: float) -> None:
    gone = dropped(maps(), size) == 0
    # Squares overlap, so that a little less than the share is dropped (Ghiasi et al. 2018, section 3.1).
    assert SHARE - off < gone.double().mean() < SHARE + 0.01
    images = gone.flatten(0, 1).double()
    corners = torch.nn.functional.avg_pool2d(images, size, 1) == 1
    grown = torch.nn.functional.max_pool2d(torch.nn.functional.pad(corners.double(), [size - 1] * 4), size, stride=1)
    assert torch.equal(grown, images)


def test_squares_larger_than_a_map_drop_whole_maps() -> None:
    gone = (dropped(maps(side=2), size=5) == 0).flatten(3)
    assert torch.equal(gone.all(-1), gone.any(-1))
    assert gone.double().mean() == pytest.approx(SHARE, abs=0.06)


def test_the_mean_of_a_task_stays() -> None:
    torch.testing.assert_close(dropped(maps(), 2).mean((1, 2, 3, 4)), torch.ones(2, dtype=torch.float64))


def test_what_is_dropped_follows_from_the_seed_the_layer_and_the_task() -> None:
    x = maps()
    first = dropped(x, 2)
    assert torch.equal(first, dropped(x, 2))
    assert torch.equal(first[1:], dropped(x[1:], 2))
    assert not torch.equal(first, dropped(x, 2, seed=4))
    assert not torch.equal(first, dropped(x, 2, layer="b"))
    assert not torch.equal(first[:, 0] == 0, first[:, 1] == 0)


@pytest.mark.parametrize("norm", ["batch", "task"])
def test_training_asks_queries_so_and_adapts_without(norm: str) -> None:
    tried = case(norm=norm)
    params, episodes = tried.params(), tried.episodes()
    learner, objective = tried.learner, tried.objective
    outcome = objective(params, episodes, Stage(1.0, seed=5))
    in_use = {**params, **learner.backbone.refit(params, episodes.support.x, learner.example_weights(episodes.support))}
    state = learner.adapt(in_use, episodes.support).state
    asked = objective.asking(in_use, Stage(1.0, seed=5))
    torch.testing.assert_close(outcome.outputs, learner.predict(asked, state, episodes.query))
    assert not torch.allclose(outcome.outputs, learner.predict(in_use, state, episodes.query))


@pytest.mark.parametrize("method", ["protonet", "maml", "baseline", "anml", "simclr"])
def test_more_is_dropped_in_the_course_of_training_by_its_seed(method: str) -> None:
    tried = case(method)
    params, episodes = tried.params(), tried.episodes()
    loss = {
        stage: tried.objective(params, episodes, Stage(*stage)).loss.item()
        for stage in ((0.0, 1), (0.0, 2), (1.0, 1), (1.0, 2))
    }
    assert loss[0.0, 1] == loss[0.0, 2]
    assert len({loss[0.0, 1], loss[1.0, 1], loss[1.0, 2]}) == 3
    assert loss[1.0, 1] == tried.objective(params, episodes, Stage(1.0, 1)).loss.item()


def test_no_parameters_of_a_model_have_anything_dropped() -> None:
    tried = case()
    assert drop_keys(tried.params(), tried.episodes().support.x) is None
    assert not any("drop" in name for name in tried.learner.init(torch.Generator()))
