"""Tasks that are mixed with others, class by class."""

from dataclasses import replace

import pytest
import torch

from innerloop_trainer.config import ConfigError, TrainingConfig
from innerloop_trainer.data import DataSource, EpisodeShape, MixedTasks, load_source
from innerloop_trainer.plan import make_plan

SHAPE = EpisodeShape(ways=3, shots=2, queries=2)


@pytest.fixture(scope="module")
def source() -> DataSource:
    return load_source("digits")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_each_example_is_a_blend_of_two_of_one_label_with_one_share_for_its_task(source: DataSource) -> None:
    both = source.train.sample(SHAPE, 8, generator())
    found = MixedTasks(source.train, 1.0).sample(SHAPE, 4, generator())
    shares = []
    for task in range(4):
        own, other = both.of_tasks(slice(task, task + 1)), both.of_tasks(slice(4 + task, 5 + task))
        sides = [
            (found.support.x[task], own.support.x[0], own.support.y[0], other.support.x[0], other.support.y[0]),
            (found.query.x[task], own.query.x[0], own.targets[0], other.query.x[0], other.targets[0]),
        ]
        for mixed, x, y, partners, labels in sides:
            for label in range(3):
                pairs = zip(mixed[y == label], x[y == label], partners[labels == label], strict=True)
                for blend, first, second in pairs:
                    apart = first - second
                    share = ((blend - second) * apart).sum() / apart.square().sum()
                    torch.testing.assert_close(blend, share * first + (1 - share) * second, atol=1e-5, rtol=1e-4)
                    shares.append((task, share.item()))
    for task in range(4):
        of_task = [share for owner, share in shares if owner == task]
        assert max(of_task) - min(of_task) < 1e-4
        assert 0 <= of_task[0] <= 1
    assert len({round(share, 3) for _, share in shares}) == 4


def test_labels_stay_and_classes_are_none_of_the_split(source: DataSource) -> None:
    plain = source.train.sample(SHAPE, 8, generator()).of_tasks(slice(4))
    found = MixedTasks(source.train, 1.0).sample(SHAPE, 4, generator())
    assert torch.equal(found.support.y, plain.support.y)
    assert torch.equal(found.targets, plain.targets)
    assert found.classes is None


def test_the_given_share_of_tasks_is_mixed_and_the_others_stay(source: DataSource) -> None:
    plain = source.train.sample(SHAPE, 400, generator()).of_tasks(slice(200))
    found = MixedTasks(source.train, 0.25).sample(SHAPE, 200, generator())
    same = (found.support.x == plain.support.x).flatten(1).all(1)
    assert torch.equal(same, (found.query.x == plain.query.x).flatten(1).all(1))
    assert 0.65 < same.double().mean() < 0.85


def test_shares_follow_the_arcsine_law(source: DataSource) -> None:
    found = MixedTasks(source.train, 1.0)
    both = source.train.sample(EpisodeShape(2, 1, 1), 4000, generator(3))
    own, other = both.query.x[:2000], both.query.x[2000:]
    mixed = found.sample(EpisodeShape(2, 1, 1), 2000, generator(3)).query.x
    apart = (own - other).flatten(1)
    shares = ((mixed - other).flatten(1) * apart).sum(1) / apart.square().sum(1)
    # The shares are drawn from Beta(1/2, 1/2), whose distribution function is 2 / pi arcsin(sqrt(l)).
    for point, below in ((0.05, 0.1436), (0.5, 0.5), (0.95, 0.8564)):
        assert (shares < point).double().mean() == pytest.approx(below, abs=0.04)


def test_equal_generators_draw_equal_tasks(source: DataSource) -> None:
    mixed = MixedTasks(source.train, 0.5)
    assert torch.equal(mixed.sample(SHAPE, 3, generator(1)).query.x, mixed.sample(SHAPE, 3, generator(1)).query.x)


def test_a_plan_mixes_training_tasks_alone(source: DataSource) -> None:
    config = TrainingConfig("protonet", "digits", ways=2, train_ways=3, mix_tasks=0.5)
    plan = make_plan(config, source, "cpu")
    assert isinstance(plan.source.train, MixedTasks)
    assert plan.source.validation is source.validation
    assert isinstance(make_plan(replace(config, mix_tasks=0.0), source, "cpu").source.train, type(source.train))


@pytest.mark.parametrize(
    ("data", "config", "says"),
    [
        ("digits", TrainingConfig("baseline", "digits", ways=2, mix_tasks=0.5), "tells training classes apart"),
        ("digits", TrainingConfig("protonet", "digits", ways=2, mix_tasks=1.5), "--mix-tasks must be at most 1"),
        ("sinusoid", TrainingConfig("maml", "sinusoid", mix_tasks=0.5), "has no classes to mix"),
        (
            "digits",
            TrainingConfig("protonet", "digits", ways=2, shots=2, wrong_labels=0.5, mix_tasks=0.5),
            "leave --wrong-labels or --mix-tasks out",
        ),
    ],
)
def test_what_can_not_be_mixed_is_refused(data: str, config: TrainingConfig, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make_plan(config, load_source(data), "cpu")
