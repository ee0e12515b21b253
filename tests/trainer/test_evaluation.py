"""Evaluation: what the figure means."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from innerloop_learner import Adapted, InputSpec, Learner, LearnerSpec, Params, Query, Support, TaskState, build_learner
from innerloop_learner.learner import MethodInfo, TaskError
from innerloop_learner.tasks import Episodes
from innerloop_trainer.data import DataError, DataSource, EpisodeShape, TaskSampler, load_source
from innerloop_trainer.evaluation import (
    Evaluation,
    EvaluationError,
    check_source,
    confidence_interval,
    evaluate,
    evaluation_batches,
    score,
)

DIGITS = load_source("digits")
SINUSOID = load_source("sinusoid")
SHAPE = EpisodeShape(2, 1, 5)


class Stubborn(Learner):
    """Answers the class (or value) that it was built with, whatever it is shown."""

    info = MethodInfo("stubborn", "baseline", "none", False, False, "no", ("classification", "regression"))

    def init(self, generator: torch.Generator) -> Params:
        del generator
        return {"answer": torch.tensor(1.0)}

    def adapt(self, params: Params, support: Support, steps: int | None = None) -> Adapted:
        del params, steps
        assert support.max_ways == self.spec.max_ways
        return Adapted({"ways": support.ways}, None)

    def predict(self, params: Params, state: TaskState, query: Query) -> Tensor:
        del state
        if self.spec.task_kind == "regression":
            return params["answer"].expand(*query.mask.shape, 1)
        answers = torch.zeros(*query.mask.shape, self.spec.max_ways)
        answers[..., int(params["answer"])] = 1.0
        return answers


def digits_learner(method: str = "protonet", norm: str = "task", ways: int = 2, **settings: object) -> Learner:
    backbone = {"width": 8, "downsample": "stride", "norm": norm}
    return build_learner(
        LearnerSpec(method, DIGITS.input, max_ways=ways, backbone_settings=backbone, settings=settings)
    )


def figures(
    learner: Learner, episodes: int = 50, shape: EpisodeShape = SHAPE, source: DataSource = DIGITS, **how: object
) -> Evaluation:
    """Of fresh parameters, on the training classes, of which there are most."""
    params = learner.init(torch.Generator().manual_seed(0))
    return evaluate(learner, params, source.train, shape, split="train", episodes=episodes, **how)


def test_the_confidence_interval_is_that_of_the_normal_approximation() -> None:
    # Standard deviation 0.5 * sqrt(100 / 99), over sqrt(100) values.
    assert confidence_interval(torch.tensor([0.0, 1.0] * 50)) == pytest.approx(1.96 * 0.0502519, rel=1e-5)
    assert confidence_interval(torch.full((20,), 0.7)) == pytest.approx(0, abs=1e-6)
    assert confidence_interval(torch.tensor([0.7])) == float("inf")


def test_the_confidence_interval_covers_the_truth_in_95_of_100_cases() -> None:
    draws = torch.rand(2000, 200, generator=torch.Generator().manual_seed(0))
    covered = sum(abs(row.mean().item() - 0.5) <= confidence_interval(row) for row in draws)
    assert 0.935 < covered / 2000 < 0.965


def test_a_learner_that_always_gives_the_same_class_is_right_by_chance() -> None:
    spec = LearnerSpec("stubborn", DIGITS.input, max_ways=4, backbone="mlp")
    result = figures(Stubborn(spec), shape=EpisodeShape(4, 1, 3))
    assert (result.mean, result.confidence_interval) == (0.25, 0.0)
    assert result.metric == "accuracy"


def test_a_learner_that_always_gives_the_same_value_has_the_error_of_that_value() -> None:
    spec = LearnerSpec("stubborn", SINUSOID.input, task_kind="regression", max_ways=0, target_size=1, backbone="mlp")
    result = figures(Stubborn(spec), shape=EpisodeShape(1, 2, 5), source=SINUSOID)
    errors = []
    for tasks, generator in evaluation_batches(0, 50):
        targets = SINUSOID.train.sample(EpisodeShape(1, 2, 5), tasks, generator).targets
        errors.append((targets - 1).square().mean((1, 2)))
    assert result.mean == pytest.approx(torch.cat(errors).mean().item(), rel=1e-6)
    assert result.metric == "mean_squared_error"


class Beacons(TaskSampler):
    """Tasks in which every example shows its class plainly."""

    def sample(self, shape: EpisodeShape, tasks: int, generator: torch.Generator) -> Episodes:
        del generator
        y = torch.arange(shape.ways).repeat_interleave(shape.queries).expand(tasks, -1)
        shown, mask = torch.eye(8)[y], torch.ones(y.shape, dtype=torch.bool)
        ways = torch.full((tasks,), shape.ways)
        return Episodes(Support(shown, y, mask, ways, shape.ways), Query(shown, mask), y)

    def check(self, shape: EpisodeShape) -> None:
        del shape


def test_a_learner_that_can_only_be_right_is_right() -> None:
    spec = LearnerSpec("protonet", InputSpec((8,)), max_ways=8, backbone="mlp", backbone_settings={"widths": []})
    result = evaluate(build_learner(spec), {"none": torch.zeros(())}, Beacons(), EpisodeShape(8, 1, 2), split="test")
    assert (result.mean, result.confidence_interval, len(result.values)) == (1.0, 0.0, 600)


def test_queries_that_pad_a_task_do_not_count() -> None:
    logits = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]])
    mask = torch.tensor([[True, True, False]])
    support = Support(torch.zeros(1, 1, 1), torch.zeros(1, 1, dtype=torch.int64), mask[:, :1], torch.tensor([2]), 2)
    targets = torch.tensor([[0, 1, 1]])
    assert score(logits, Episodes(support, Query(torch.zeros(1, 3, 1), mask), targets)).tolist() == [0.5]
    values = Episodes(support, Query(torch.zeros(1, 3, 1), mask), torch.tensor([[[1.0], [3.0], [99.0]]]))
    assert score(torch.zeros(1, 3, 1), values).tolist() == [5.0]


def test_a_seed_gives_the_same_figure_and_another_seed_another() -> None:
    learner = digits_learner()
    same, again, other = (figures(learner, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(same.values, again.values)
    assert not torch.equal(same.values, other.values)


def test_more_episodes_begin_with_the_same_ones() -> None:
    learner = digits_learner()
    assert torch.equal(figures(learner, episodes=75).values[:50], figures(learner, episodes=50).values)
    assert len(figures(learner, episodes=30).values) == 30


def test_the_figure_is_the_mean_over_tasks_evaluated_one_by_one() -> None:
    learner = digits_learner("maml", steps=2, rate=0.01)
    params = learner.init(torch.Generator().manual_seed(0))
    by_one = []
    for tasks, generator in evaluation_batches(0, 50):
        batch = DIGITS.train.sample(SHAPE, tasks, generator)
        for t in range(tasks):
            support = batch.support
            alone = Support(*(getattr(support, n)[t : t + 1] for n in ("x", "y", "mask", "ways")), max_ways=2)
            with torch.no_grad():
                state = learner.adapt(params, alone).state
                logits = learner.predict(params, state, Query(batch.query.x[t : t + 1], batch.query.mask[t : t + 1]))
            by_one.append((logits.argmax(-1) == batch.targets[t]).float().mean().item())
    # One query may lie so near the border that rounding decides.
    assert figures(learner).mean == pytest.approx(sum(by_one) / 50, abs=1 / 500 + 1e-9)


def test_queries_normalise_each_other_only_in_a_transductive_evaluation() -> None:
    learner = digits_learner("protonet", "task")
    inductive, transductive = figures(learner), figures(learner, protocol="transductive")
    assert not torch.equal(inductive.values, transductive.values)
    assert inductive.to_metric("digits").protocol == "inductive, 2-way 1-shot, 50 train episodes, digits"
    assert transductive.to_metric("digits").protocol == "transductive, 2-way 1-shot, 50 train episodes, digits"


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_a_transductive_evaluation_that_would_be_inductive_is_refused(norm: str) -> None:
    with pytest.raises(EvaluationError, match="would equal the inductive one"):
        figures(digits_learner(norm=norm), protocol="transductive")


def test_a_model_for_five_ways_can_be_evaluated_at_fewer_and_not_at_more() -> None:
    learner = digits_learner("maml", ways=5, steps=2, rate=0.01)
    params = learner.init(torch.Generator().manual_seed(0))
    result = figures(learner, shape=EpisodeShape(3, 1, 5))
    by_hand = []
    for tasks, generator in evaluation_batches(0, 50):
        batch = DIGITS.train.sample(EpisodeShape(3, 1, 5), tasks, generator)
        with torch.no_grad():
            logits = learner.predict(
                params, learner.adapt(params, replace(batch.support, max_ways=5)).state, batch.query
            )
        assert logits.shape[-1] == 5
        by_hand.append((logits[..., :3].argmax(-1) == batch.targets).float().mean(1))
    assert result.mean == pytest.approx(torch.cat(by_hand).mean().item(), abs=1e-6)
    with pytest.raises(TaskError, match="this maml model takes at most 5 ways, not 6"):
        figures(learner, shape=EpisodeShape(6, 1, 5))


def test_a_model_whose_ways_are_fixed_is_not_evaluated_at_others() -> None:
    learner = Stubborn(LearnerSpec("stubborn", DIGITS.input, max_ways=4, backbone="mlp"))
    with pytest.raises(TaskError, match="takes exactly 4 ways, not 3"):
        figures(learner, shape=EpisodeShape(3, 1, 3))


def test_a_model_without_a_head_can_be_evaluated_at_more_ways_than_it_was_built_for() -> None:
    assert len(figures(digits_learner(ways=2), shape=EpisodeShape(6, 1, 3)).values) == 50


def test_other_steps_than_the_models_own_are_named_with_the_figure() -> None:
    learner = digits_learner("maml", steps=2, rate=0.01)
    assert "3 inner steps, " in figures(learner, steps=3).to_metric("digits").protocol
    assert figures(learner, steps=2).to_metric("digits") == figures(learner).to_metric("digits")
    assert "0 inner steps, " in figures(learner, steps=0).to_metric("digits").protocol


@pytest.mark.parametrize(
    ("method", "steps", "why"), [("maml", 21, "0 to 20"), ("maml", -1, "0 to 20"), ("protonet", 1, "has no inner")]
)
def test_steps_that_no_server_would_take_are_refused(method: str, steps: int, why: str) -> None:
    with pytest.raises(EvaluationError, match=why):
        figures(digits_learner(method), steps=steps)


def test_more_ways_than_classes_are_refused() -> None:
    with pytest.raises(DataError, match="6 classes, too few for 7 ways"):
        figures(digits_learner(), shape=EpisodeShape(7, 1, 1))


def test_a_source_of_other_inputs_or_tasks_is_refused() -> None:
    learner = digits_learner()
    check_source(learner, DIGITS)
    with pytest.raises(EvaluationError, match="solves classification tasks, sinusoid has regression"):
        check_source(learner, SINUSOID)
    larger = replace(DIGITS, name="larger", input=replace(DIGITS.input, shape=(1, 28, 28)))
    with pytest.raises(EvaluationError, match="takes inputs of 1x8x8 uint8, larger has inputs of 1x28x28 uint8"):
        check_source(learner, larger)
    inverted = replace(DIGITS, name="inverted", input=replace(DIGITS.input, mean=(1.0,), std=(-1.0,)))
    with pytest.raises(EvaluationError, match=r"normalises inputs with mean \[0.0\].*, inverted with mean \[1.0\]"):
        check_source(learner, inverted)


def test_evaluating_keeps_no_gradients_and_changes_no_parameters() -> None:
    learner = digits_learner("maml", steps=1, rate=0.01)
    params = learner.init(torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in params.items()}
    result = evaluate(learner, params, DIGITS.train, SHAPE, split="train", episodes=25)
    assert not result.values.requires_grad
    assert all(torch.equal(value, before[name]) and value.grad is None for name, value in params.items())
