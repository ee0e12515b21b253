"""Promises that every registered method keeps (see the design), checked in float64 on small learners."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cases import CASES, Case
from torch import Tensor

from innerloop_learner import Params, Query, Support, TaskState
from innerloop_learner.bundle import Manifest, Provenance, TaskLimits, load_bundle, save_bundle
from innerloop_learner.tasks import Episodes

ROUNDING = 1e-9
"""Largest difference relative to the largest answer; float64 rounding grows a little over inner steps."""

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def assert_same(a: Tensor, b: Tensor, tolerance: float = ROUNDING) -> None:
    finite = torch.isfinite(a)
    assert torch.equal(finite, torch.isfinite(b))
    scale = a[finite].abs().max().clamp(min=1)
    assert (a[finite] - b[finite]).abs().max() / scale < tolerance


def answer(case: Case, params: Params, support: Support, query: Query) -> Tensor:
    with torch.no_grad():
        return case.learner.predict(params, case.learner.adapt(params, support).state, query)


def task(episodes: Episodes, index: int) -> Episodes:
    """One task of a batch, alone."""
    one = slice(index, index + 1)
    support, query = episodes.support, episodes.query
    return Episodes(
        Support(support.x[one], support.y[one], support.mask[one], support.ways[one], support.max_ways),
        Query(query.x[one], query.mask[one]),
        episodes.targets[one],
    )


def padded(episodes: Episodes, junk: float = 7.0) -> Episodes:
    """The same tasks with two examples and two queries of padding, filled with junk."""

    def pad(tensor: Tensor, value: float) -> Tensor:
        return torch.cat([tensor, torch.full_like(tensor[:, :2], value)], dim=1)

    support, query = episodes.support, episodes.query
    return Episodes(
        replace(support, x=pad(support.x, junk), y=pad(support.y, 0), mask=pad(support.mask, False)),
        Query(pad(query.x, junk), pad(query.mask, False)),
        pad(episodes.targets, 0),
    )


@each_case
def test_a_batch_of_tasks_gives_what_each_task_alone_gives(case: Case) -> None:
    params, episodes = case.params(), case.episodes()
    together = answer(case, params, episodes.support, episodes.query)
    for index in range(3):
        alone = task(episodes, index)
        assert_same(together[index : index + 1], answer(case, params, alone.support, alone.query))


@each_case
def test_tasks_of_different_sizes_share_a_batch(case: Case) -> None:
    params, small, large = case.params(), task(case.episodes(seed=3), 0), task(case.episodes(seed=4), 0)
    grown = padded(small)
    # The large task has no padding: its extra examples are real.
    extra = padded(large)
    real = Support(extra.support.x, extra.support.y, torch.ones_like(extra.support.mask), extra.support.ways, 4)
    real = replace(real, max_ways=large.support.max_ways)
    both = Support(
        *(torch.cat([getattr(grown.support, name), getattr(real, name)]) for name in ("x", "y", "mask", "ways")),
        max_ways=real.max_ways,
    )
    query = Query(torch.cat([small.query.x, large.query.x]), torch.cat([small.query.mask, large.query.mask]))
    together = answer(case, params, both, query)
    assert_same(together[:1], answer(case, params, small.support, small.query))
    assert_same(together[1:], answer(case, params, real, large.query))


@each_case
def test_padding_changes_nothing(case: Case) -> None:
    params, episodes = case.params(), case.episodes()
    plain = answer(case, params, episodes.support, episodes.query)
    more = padded(episodes)
    assert_same(plain, answer(case, params, more.support, more.query)[:, : plain.shape[1]])


@each_case
def test_an_answer_depends_on_its_own_query_only(case: Case) -> None:
    params, episodes = case.params(), case.episodes()
    together = answer(case, params, episodes.support, episodes.query)
    for index in range(episodes.query.x.shape[1]):
        one = slice(index, index + 1)
        alone = answer(case, params, episodes.support, Query(episodes.query.x[:, one], episodes.query.mask[:, one]))
        assert_same(together[:, one], alone)


@each_case
def test_the_order_of_the_support_set_does_not_matter(case: Case) -> None:
    if case.learner.info.order_matters:
        pytest.skip("sequential method: declares that order matters")
    params, episodes = case.params(), case.episodes()
    support = episodes.support
    order = torch.randperm(support.x.shape[1], generator=torch.Generator().manual_seed(5))
    shuffled = Support(support.x[:, order], support.y[:, order], support.mask[:, order], support.ways, support.max_ways)
    expected = answer(case, params, support, episodes.query)
    assert_same(expected, answer(case, params, shuffled, episodes.query))


@each_case
def test_the_support_set_matters(case: Case) -> None:
    params, episodes, other = case.params(), case.episodes(), case.episodes(seed=2)
    expected = answer(case, params, episodes.support, episodes.query)
    changed = answer(case, params, other.support, episodes.query)
    finite = torch.isfinite(expected)
    assert (expected[finite] - changed[finite]).abs().max() > 1e-3


@each_case
def test_same_inputs_give_the_same_outputs_to_the_bit(case: Case) -> None:
    params, episodes = case.params(torch.float32), case.episodes().to(torch.float32)
    first = answer(case, params, episodes.support, episodes.query)
    assert torch.equal(first, answer(case, params, episodes.support, episodes.query))


@each_case
def test_float32_stays_close_to_float64(case: Case) -> None:
    exact = answer(case, case.params(), case.episodes().support, case.episodes().query)
    episodes = case.episodes().to(torch.float32)
    single = answer(case, case.params(torch.float32), episodes.support, episodes.query)
    assert_same(exact, single.double(), tolerance=1e-3)


@each_case
def test_classes_past_the_ways_of_a_task_are_ruled_out(case: Case) -> None:
    if case.spec.task_kind == "regression":
        pytest.skip("regression has no classes")
    episodes = case.episodes(ways=3)
    logits = answer(case, case.params(), episodes.support, episodes.query)
    assert torch.isfinite(logits[..., :3]).all()
    assert torch.isneginf(logits[..., 3:]).all()
    assert logits.shape[-1] == episodes.support.max_ways


@each_case
def test_the_task_state_is_flat_and_leads_with_tasks(case: Case) -> None:
    with torch.no_grad():
        adapted = case.learner.adapt(case.params(), case.episodes().support)
    assert all(isinstance(value, Tensor) and value.shape[0] == 3 for value in adapted.state.values())
    assert not any(value.requires_grad for value in adapted.state.values())
    if case.learner.default_steps:
        assert adapted.losses is not None
        assert adapted.losses.shape == (3, case.learner.default_steps)
    else:
        assert adapted.losses is None


@each_case
def test_states_can_be_split_and_batched_again(case: Case) -> None:
    params, episodes = case.params(), case.episodes()
    with torch.no_grad():
        state = case.learner.adapt(params, episodes.support).state
        order = [2, 0, 1]
        regrouped: TaskState = {
            name: torch.stack([value[index].clone() for index in order]) for name, value in state.items()
        }
        query = Query(episodes.query.x[order], episodes.query.mask[order])
        expected = case.learner.predict(params, state, episodes.query)
        assert_same(expected[order], case.learner.predict(params, regrouped, query))


@each_case
def test_learning_reduces_the_outer_loss(case: Case) -> None:
    learner, episodes = case.learner, case.episodes(tasks=4).to(torch.float32)
    params = learner.init(torch.Generator().manual_seed(0))
    learned = {name: value.requires_grad_() for name, value in params.items() if name not in learner.buffers()}
    optimizer = torch.optim.Adam(learned.values(), lr=3e-3)
    losses = []
    for _ in range(30):
        objective = learner.objective(params, episodes)
        optimizer.zero_grad()
        objective.loss.backward()
        optimizer.step()
        params.update(objective.buffers)
        losses.append(objective.loss.item())
    assert losses[-1] < 0.8 * losses[0]


@each_case
def test_a_saved_and_loaded_learner_gives_the_same_answers(case: Case, tmp_path: Path) -> None:
    params, episodes = case.params(torch.float32), case.episodes().to(torch.float32)
    limits = TaskLimits(3, 2, case.learner.default_steps, case.spec.max_ways, case.learner.max_steps)
    provenance = Provenance("random", 0, 0, "2026-01-01T00:00:00+00:00", {})
    save_bundle(tmp_path / "bundle", Manifest("bundle", case.spec, limits, provenance), params)
    bundle = load_bundle(tmp_path / "bundle")
    with torch.no_grad():
        loaded = bundle.learner.predict(
            bundle.params, bundle.learner.adapt(bundle.params, episodes.support).state, episodes.query
        )
    assert torch.equal(answer(case, params, episodes.support, episodes.query), loaded)
