"""The estimator `discriminant`: the map that its docstring describes, and that it helps on unseen classes."""

import pytest
import torch
from torch import Tensor

from innerloop_learner import Episodes, InputSpec, Learner, LearnerSpec, Query, Support, build_learner
from innerloop_learner.backbones.adapter import BIAS, WEIGHT
from innerloop_learner.objectives import Stage, build_objective
from innerloop_learner.settings import SettingsError
from innerloop_trainer.outer_loop import Estimator, OptimizerPlan, OuterLoop, build_estimator
from innerloop_trainer.outer_loop.estimators.discriminant import discriminant_map

CLASSES, FEATURES = 12, 6


def learner(method: str = "protonet", normalise: bool = True, backbone: str = "adapter") -> Learner:
    settings = {"normalise": normalise} if backbone == "adapter" else {}
    inputs = InputSpec((FEATURES,))
    spec = LearnerSpec(method, inputs, "classification", CLASSES, 0, CLASSES, backbone, settings)
    return build_learner(spec)


def estimator(made: Learner) -> Estimator:
    return build_estimator("discriminant", build_objective(made), {})


def examples(seed: int, classes: int = CLASSES, count: int = 40) -> Tensor:
    """Examples [classes, count, FEATURES]: classes differ in three directions, and examples of one in the others."""
    generator = torch.Generator().manual_seed(seed)
    centres, noise = (torch.randn(classes, each, FEATURES, generator=generator) for each in (1, count))
    spread = torch.tensor([1.0, 1.0, 1.0, 0.1, 0.1, 0.1])
    return 3 + centres * spread + noise * spread.flip(0)


def episode(x: Tensor, shots: int) -> Episodes:
    """One task of all classes of x [W, N, F], of `shots` support examples a class, the others queries."""
    ways, count = x.shape[:2]
    labels = torch.arange(ways).unsqueeze(1).expand(ways, count)
    support, query = x[:, :shots].flatten(0, 1), x[:, shots:].flatten(0, 1)
    return Episodes(
        Support(
            support.unsqueeze(0),
            labels[:, :shots].reshape(1, -1),
            torch.ones(1, len(support), dtype=torch.bool),
            torch.tensor([ways]),
            ways,
        ),
        Query(query.unsqueeze(0), torch.ones(1, len(query), dtype=torch.bool)),
        labels[:, shots:].reshape(1, -1),
        torch.arange(ways).unsqueeze(0),
    )


def loop(made: Learner) -> OuterLoop:
    params = made.init(torch.Generator().manual_seed(0))
    return OuterLoop(estimator(made), params, OptimizerPlan(10, 0.01, 10.0), seed=0)


def accuracy(made: Learner, params: dict[str, Tensor], batch: Episodes) -> float:
    outputs = made.predict(params, made.adapt(params, batch.support).state, batch.query)
    return (outputs.argmax(-1) == batch.targets).double().mean().item()


@pytest.mark.parametrize("method", ["protonet", "lr-d2"])
def test_unseen_classes_are_told_apart_better_after_it(method: str) -> None:
    made = learner(method)
    trained = loop(made)
    before = {name: value.clone() for name, value in trained.params.items()}
    trained.step(episode(examples(0), 1), 0)
    unseen = [episode(examples(seed, classes=5), 1) for seed in range(1, 21)]
    gains = [accuracy(made, trained.params, batch) - accuracy(made, before, batch) for batch in unseen]
    assert sum(gains) / len(gains) > 0.05


def test_whitened_differences_within_classes_are_alike_in_all_directions_without_shrinkage() -> None:
    root = torch.randn(FEATURES, FEATURES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    within, between = root @ root.T, torch.eye(FEATURES, dtype=torch.float64)
    mapped = discriminant_map(within, between, shrinkage=1e-12, stretch=0.0)
    whitened = mapped @ within @ mapped.T
    torch.testing.assert_close(whitened, whitened[0, 0] * torch.eye(FEATURES, dtype=torch.float64))


def test_features_stay_as_they_are_with_much_shrinkage_and_no_stretch() -> None:
    within = torch.diag(torch.arange(1.0, 1 + FEATURES, dtype=torch.float64))
    mapped = discriminant_map(within, within, shrinkage=1e9, stretch=0.0)
    torch.testing.assert_close(mapped, torch.eye(FEATURES, dtype=torch.float64), rtol=0, atol=1e-6)


def test_examples_of_several_steps_count_as_those_of_one() -> None:
    data = examples(0)
    whole, parts = loop(learner()), loop(learner())
    whole.step(episode(data, 1), 0)
    parts.step(episode(data[:, :16], 1), 0)
    parts.step(episode(data[:, 16:], 1), 1)
    for name in (WEIGHT, BIAS):
        torch.testing.assert_close(parts.params[name], whole.params[name], rtol=1e-4, atol=1e-5)


def test_padding_does_not_count() -> None:
    batch = episode(examples(0), 1)
    made = estimator(learner())
    params = made.objective.learner.init(torch.Generator().manual_seed(0))
    mask = torch.cat([batch.query.mask, torch.zeros(1, 3, dtype=torch.bool)], 1)
    query = Query(torch.cat([batch.query.x, 9 * torch.ones(1, 3, FEATURES)], 1), mask)
    padded = Episodes(batch.support, query, torch.cat([batch.targets, torch.zeros(1, 3).long()], 1), batch.classes)
    plain, other = (made.estimate(params, made.start(params), each, Stage()).buffers for each in (batch, padded))
    for name in (WEIGHT, BIAS):
        torch.testing.assert_close(plain[name], other[name])


@pytest.mark.parametrize("made", [learner(normalise=False), learner(backbone="mlp")], ids=["plain adapter", "mlp"])
def test_another_backbone_is_refused_with_what_to_add(made: Learner) -> None:
    with pytest.raises(SettingsError, match="--backbone adapter --backbone-set normalise=true"):
        estimator(made)
