"""The outer loop: what a step changes, and that its state is all there is."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch

from innerloop_learner import Episodes, InputSpec, LearnerSpec, Params, build_learner
from innerloop_learner.learner import methods
from innerloop_learner.norms import norms
from innerloop_learner.objectives import Stage, build_objective, objectives
from innerloop_learner.settings import NoSettings, described
from innerloop_trainer.data import EpisodeShape, load_source
from innerloop_trainer.outer_loop import (
    Estimate,
    Estimator,
    OptimizerPlan,
    OuterLoop,
    TrainingDefaults,
    build_estimator,
    defaults_of,
    estimators,
    training_defaults,
)
from innerloop_trainer.outer_loop.loop import decayed
from innerloop_trainer.seeds import generator_for

LEARNER = build_learner(
    LearnerSpec(
        "protonet", InputSpec((1, 8, 8)), backbone_settings={"width": 4, "downsample": "stride", "norm": "batch"}
    )
)
DIGITS = load_source("digits")


class Constant(Estimator):
    """The same gradient for every parameter, and ones for every buffer."""

    def __init__(self, value: float) -> None:
        super().__init__(build_objective(LEARNER), NoSettings())
        self._value = value

    def estimate(self, params: Params, carried: Params, episodes: Episodes, stage: Stage) -> Estimate:
        del carried, episodes, stage
        buffers = {name: torch.ones_like(params[name]) for name in LEARNER.buffers()}
        gradients = {n: torch.full_like(p, self._value) for n, p in params.items() if n not in buffers}
        return Estimate(gradients, buffers, torch.tensor(1.0), torch.zeros(()))


def params(seed: int = 0) -> Params:
    return LEARNER.init(torch.Generator().manual_seed(seed))


class Hasty(Constant):
    """Learns one of the parameters faster."""

    def rates(self) -> Mapping[str, float]:
        return {"conv0.bias": 3.0}


class Remembering(Constant):
    """A gradient that grows from call to call."""

    def start(self, params: Params) -> Params:
        del params
        return {"calls": torch.zeros(())}

    def estimate(self, params: Params, carried: Params, episodes: Episodes, stage: Stage) -> Estimate:
        plain, calls = super().estimate(params, carried, episodes, stage), carried["calls"] + 1
        gradients = {name: value * calls**2 for name, value in plain.gradients.items()}
        return replace(plain, gradients=gradients, carried={"calls": calls})


def backpropagation() -> Estimator:
    return build_estimator("backpropagation", build_objective(LEARNER), {})


ESTIMATORS = {
    "backpropagation": backpropagation(),
    "with a memory": Remembering(0.01),
    "es": build_estimator("es", build_objective(LEARNER), {"population": 4}),
}


def loop(estimator: Estimator, clip: float = 10.0, seed: int = 0) -> OuterLoop:
    return OuterLoop(estimator, params(seed), OptimizerPlan(10, learning_rate=0.01, gradient_clip=clip), seed=0)


def episodes(position: int) -> Episodes:
    return DIGITS.train.sample(EpisodeShape(4, 1, 2), 2, generator_for(0, "test", position))


def test_the_first_step_moves_every_weight_by_the_learning_rate_against_its_gradient() -> None:
    trained = loop(Constant(0.001))
    trained.step(episodes(0), 0)
    for name, before in params().items():
        if name not in LEARNER.buffers():
            torch.testing.assert_close(trained.params[name], before - 0.01, rtol=0, atol=1e-6)


def test_an_estimator_may_have_a_parameter_learned_at_another_rate() -> None:
    trained = loop(Hasty(0.001))
    trained.step(episodes(0), 0)
    for name, rate in (("conv0.bias", 0.03), ("conv1.bias", 0.01)):
        torch.testing.assert_close(trained.params[name], params()[name] - rate, rtol=0, atol=1e-6)


def test_weight_decay_shrinks_convolutions_by_its_part_of_the_rate_and_nothing_else() -> None:
    trained = OuterLoop(Constant(0.001), params(), OptimizerPlan(10, 0.01, 10.0, weight_decay=2.0), seed=0)
    trained.step(episodes(0), 0)
    for name, before in params().items():
        if name not in LEARNER.buffers():
            kept = 0.98 if name.startswith("conv") and name.endswith("weight") else 1.0
            torch.testing.assert_close(trained.params[name], kept * before - 0.01, rtol=0, atol=1e-6)


def test_weight_decay_leaves_alone_what_a_method_learns_besides_its_backbone() -> None:
    for method in ("maml++", "meta-sgd"):
        learner = build_learner(LearnerSpec(method, InputSpec((1, 16, 16)), backbone_settings={"width": 4}))
        assert decayed(learner) == {f"conv{block}.weight" for block in range(4)}


def test_buffers_are_taken_over_not_learned() -> None:
    trained = loop(Constant(0.001))
    trained.step(episodes(0), 0)
    assert all(torch.equal(trained.params[name], torch.ones_like(trained.params[name])) for name in LEARNER.buffers())


def test_the_learning_rate_falls_from_its_base_to_zero_along_a_cosine() -> None:
    rates = [OptimizerPlan(10, 0.01, 10.0).rate_at(iteration) for iteration in range(11)]
    assert rates[0] == 0.01
    assert rates[5] == pytest.approx(0.005)
    assert rates[10] == pytest.approx(0)
    assert rates == sorted(rates, reverse=True)


def test_the_learning_rate_may_stay_as_it_is() -> None:
    constant = OptimizerPlan(10, 0.01, 10.0, "constant")
    assert {constant.rate_at(iteration) for iteration in range(11)} == {0.01}


def test_a_gradient_that_is_too_long_is_shortened() -> None:
    clipped = loop(Constant(1000.0), clip=1.0)
    clipped.step(episodes(0), 0)
    moments = [value for name, value in clipped.state().items() if name.endswith(".exp_avg")]
    norm = torch.cat([value.flatten() for value in moments]).norm().item() / 0.1  # Adam's first average
    assert norm == pytest.approx(1.0, rel=1e-3)


def test_the_parameters_given_are_left_alone() -> None:
    given, untouched = params(), params()
    OuterLoop(Constant(1.0), given, OptimizerPlan(10, 0.01, 10.0), 0).step(episodes(0), 0)
    assert all(torch.equal(value, untouched[name]) for name, value in given.items())


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS.keys())
def test_a_restored_loop_goes_on_to_the_bit(estimator: Estimator) -> None:
    whole = loop(estimator)
    for iteration in range(3):
        whole.step(episodes(iteration), iteration)
    state = {name: value.clone() for name, value in whole.state().items()}
    restored = loop(estimator, seed=9)
    restored.restore(state)
    kept = {name: value.clone() for name, value in state.items()}
    for iteration in range(3, 6):
        for each in (whole, restored):
            each.step(episodes(iteration), iteration)
    after, expected = restored.state(), whole.state()
    assert after.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in after.items())
    assert all(torch.equal(value, kept[name]) for name, value in state.items()), "the state given was changed"


def test_a_loop_can_be_restored_to_before_its_first_step() -> None:
    fresh = loop(backpropagation())
    restored = loop(backpropagation(), seed=9)
    restored.restore(fresh.state())
    fresh.step(episodes(0), 0)
    restored.step(episodes(0), 0)
    assert all(torch.equal(value, fresh.params[name]) for name, value in restored.params.items())


def test_training_defaults_name_what_there_is() -> None:
    assert set(training_defaults) <= set(methods)
    assert {defaults_of(name).estimator for name in methods} <= set(estimators)
    assert {defaults_of(name).norm for name in methods} <= set(norms)
    assert defaults_of("a method of somebody else") == TrainingDefaults()


@pytest.mark.parametrize("name", list(methods))
def test_no_setting_of_an_estimator_is_called_as_one_of_a_method(name: str) -> None:
    kinds = (methods[name], objectives[methods[name].info.objective])
    taken = {each.name for kind in kinds for each in described(kind.settings_class)}
    for estimator in estimators:
        settings = described(estimators[estimator].settings_class)
        assert taken.isdisjoint(each.name for each in settings)
        assert all(each.doc for each in settings)


@pytest.mark.parametrize("change", ["missing", "reshaped"])
def test_the_state_of_another_learner_is_refused(change: str) -> None:
    state = loop(Constant(1.0)).state()
    if change == "missing":
        del state["parameters.conv0.weight"]
    else:
        state["parameters.conv0.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match="not those of this learner"):
        loop(Constant(1.0)).restore(state)
