"""Promises that every registered method keeps (see the design), checked in float64 on small learners."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cases import CASES, Case
from torch import Tensor

from innerloop_learner import Params, Query, Support, TaskState
from innerloop_learner.acceleration import accelerated
from innerloop_learner.bundle import load_bundle, save_bundle
from innerloop_learner.manifest import Manifest, Provenance, TaskLimits
from innerloop_learner.objectives import Stage
from innerloop_learner.state import WEIGHTS, section
from innerloop_learner.tasks import Episodes

ROUNDING = 1e-9
"""Largest difference relative to the largest answer; float64 rounding grows a little over inner steps."""

REPETITION = {"matching-fce": 0.15, "snail": 0.3}
"""The same where the examples of one class come five times, of methods that read the support set as a sequence."""

TRUST = 0.05
"""The same, of learners that weigh examples: one that comes again speaks for its own label."""

ONE_BY_ONE = ("oml", "anml")
"""Methods that take a step for each example, so that one that comes again is learned again."""

each_case = pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name, marks=pytest.mark.slow if case.seldom else ()) for case in CASES]
)

each_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])


def assert_same(a: Tensor, b: Tensor, tolerance: float = ROUNDING) -> None:
    finite = torch.isfinite(a)
    assert torch.equal(finite, torch.isfinite(b))
    scale = a[finite].abs().max().clamp(min=1)
    assert (a[finite] - b[finite]).abs().max() / scale < tolerance


def answer(case: Case, params: Params, support: Support, query: Query, device: str = "cpu") -> Tensor:
    """Adapt and predict on a device; the outputs come back to the CPU."""
    placed = {name: value.to(device) for name, value in params.items()}
    learner = accelerated(case.learner, device)
    with torch.no_grad():
        state = learner.adapt(placed, support.to(device)).state
        return learner.predict(placed, state, query.to(device)).cpu()


def task(episodes: Episodes, index: int) -> Episodes:
    """One task of a batch, alone."""
    return episodes.of_tasks(slice(index, index + 1))


def lengthened(episodes: Episodes, examples: int, queries: int, junk: float = 7.0) -> Episodes:
    """The same tasks with so many examples and queries of padding, filled with junk."""

    def pad(tensor: Tensor, value: float, count: int) -> Tensor:
        return torch.cat([tensor, tensor.new_full((len(tensor), count, *tensor.shape[2:]), value)], dim=1)

    support, query = episodes.support, episodes.query
    x, y, mask = pad(support.x, junk, examples), pad(support.y, 0, examples), pad(support.mask, False, examples)
    return Episodes(
        replace(support, x=x, y=y, mask=mask),
        Query(pad(query.x, junk, queries), pad(query.mask, False, queries)),
        pad(episodes.targets, 0, queries),
    )


def padded(episodes: Episodes) -> Episodes:
    """The same tasks with two examples and two queries of padding."""
    return lengthened(episodes, 2, 2)


@each_case
@each_device
def test_a_batch_of_tasks_gives_what_each_task_alone_gives(case: Case, device: str) -> None:
    params, episodes = case.params(), case.episodes()
    together = answer(case, params, episodes.support, episodes.query, device)
    for index in range(3):
        alone = task(episodes, index)
        assert_same(together[index : index + 1], answer(case, params, alone.support, alone.query, device))


@each_case
@each_device
def test_tasks_of_different_sizes_share_a_batch(case: Case, device: str) -> None:
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
    together = answer(case, params, both, query, device)
    assert_same(together[:1], answer(case, params, small.support, small.query, device))
    assert_same(together[1:], answer(case, params, real, large.query, device))


@each_case
@each_device
def test_tasks_of_different_ways_share_a_batch(case: Case, device: str) -> None:
    if case.spec.task_kind == "regression":
        pytest.skip("regression has no classes")
    params, few, many = case.params(), task(case.episodes(ways=2, seed=3), 0), task(case.episodes(ways=4, seed=4), 0)
    examples, queries = many.support.x.shape[1], many.query.x.shape[1]
    grown = lengthened(few, examples - few.support.x.shape[1], queries - few.query.x.shape[1])
    support = Support(
        *(torch.cat([getattr(t.support, name) for t in (grown, many)]) for name in ("x", "y", "mask", "ways")),
        max_ways=case.spec.max_ways,
    )
    query = Query(*(torch.cat([getattr(t.query, name) for t in (grown, many)]) for name in ("x", "mask")))
    together = answer(case, params, support, query, device)
    alone = answer(case, params, few.support, few.query, device)
    assert_same(together[:1, : alone.shape[1]], alone)
    assert_same(together[1:], answer(case, params, many.support, many.query, device))
    assert torch.isneginf(together[0, :, 2:]).all()
    assert torch.isfinite(together[1]).all()


@each_case
def test_classes_may_have_different_numbers_of_examples(case: Case) -> None:
    if case.spec.task_kind == "regression":
        pytest.skip("regression has no classes")
    params, episodes = case.params(), case.episodes(shots=3)
    support = episodes.support
    kept = [index for index in range(support.x.shape[1]) if index not in (0, 1, 4)]  # one, two and three of a class
    assert support.y[0, kept].bincount().tolist() == [1, 2, 3]
    unequal = replace(support, x=support.x[:, kept], y=support.y[:, kept], mask=support.mask[:, kept])
    masked = replace(support, mask=support.mask.clone())
    masked.mask[:, (0, 1, 4)] = False
    expected = answer(case, params, unequal, episodes.query)
    assert torch.isfinite(expected[..., :3]).all()
    assert_same(expected, answer(case, params, masked, episodes.query))


def repeated(support: Support, label: int, times: int) -> Support:
    """The same tasks, each example of a class so many times."""
    kept = torch.arange(support.x.shape[1])
    again = kept[support.y[0] == label].repeat(times - 1)
    rows = torch.cat([kept, again])
    return replace(support, x=support.x[:, rows], y=support.y[:, rows], mask=support.mask[:, rows])


@each_case
def test_repeating_the_examples_of_one_class_changes_little(case: Case) -> None:
    if case.spec.task_kind == "regression":
        pytest.skip("regression has no classes")
    if case.spec.method in ONE_BY_ONE:
        pytest.skip("learns examples one by one: an example that comes again is learned again")
    params, episodes = case.params(), case.episodes()
    expected = answer(case, params, episodes.support, episodes.query)
    found = answer(case, params, repeated(episodes.support, 0, 5), episodes.query)
    usual = ROUNDING if case.spec.weighting == "none" else TRUST
    assert_same(expected, found, REPETITION.get(case.spec.method, usual))


@each_case
def test_class_balance_is_nothing_where_classes_have_equally_many_examples(case: Case) -> None:
    params, episodes = case.params(torch.float32), case.episodes().to(torch.float32)
    proportional = Case(replace(case.spec, class_balance="proportional"))
    balanced = answer(case, params, episodes.support, episodes.query)
    assert torch.equal(balanced, answer(proportional, params, episodes.support, episodes.query))


@each_case
@each_device
def test_padding_changes_nothing(case: Case, device: str) -> None:
    params, episodes = case.params(), case.episodes()
    plain = answer(case, params, episodes.support, episodes.query, device)
    more = padded(episodes)
    assert_same(plain, answer(case, params, more.support, more.query, device)[:, : plain.shape[1]])


@each_case
@each_device
def test_an_answer_depends_on_its_own_query_only(case: Case, device: str) -> None:
    params, episodes = case.params(), case.episodes()
    together = answer(case, params, episodes.support, episodes.query, device)
    for index in range(episodes.query.x.shape[1]):
        one = slice(index, index + 1)
        alone = answer(
            case, params, episodes.support, Query(episodes.query.x[:, one], episodes.query.mask[:, one]), device
        )
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
@each_device
def test_same_inputs_give_the_same_outputs_to_the_bit(case: Case, device: str) -> None:
    params, episodes = case.params(torch.float32), case.episodes().to(torch.float32)
    first = answer(case, params, episodes.support, episodes.query, device)
    assert torch.equal(first, answer(case, params, episodes.support, episodes.query, device))


@each_case
@each_device
def test_float32_stays_close_to_float64(case: Case, device: str) -> None:
    exact = answer(case, case.params(), case.episodes().support, case.episodes().query)
    episodes = case.episodes().to(torch.float32)
    single = answer(case, case.params(torch.float32), episodes.support, episodes.query, device)
    # TF32, which convolutions on a GPU may use, keeps ten bits.
    assert_same(exact, single.double(), tolerance=1e-3 if device == "cpu" else 2e-2)


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


each_case_with_steps = pytest.mark.parametrize(
    "case", [case for case in CASES if case.learner.max_steps], ids=lambda case: case.name
)


@each_case_with_steps
def test_no_steps_give_the_answer_of_the_initialisation(case: Case) -> None:
    params, episodes = case.params(), case.episodes()
    with torch.no_grad():
        state, losses, _ = case.learner.adapt(params, episodes.support, 0)
    assert losses is not None
    assert losses.shape == (3, 0)
    weights = section(state, WEIGHTS)
    assert weights
    assert all(torch.equal(weight, params[name].expand_as(weight)) for name, weight in weights.items())
    # Nothing was learned, so it does not matter what the examples are called.
    relabelled = replace(episodes.support, y=episodes.support.y.flip(1))
    with torch.no_grad():
        other = case.learner.adapt(params, relabelled, 0).state
        expected = case.learner.predict(params, state, episodes.query)
        assert torch.equal(expected, case.learner.predict(params, other, episodes.query))


@each_case_with_steps
def test_more_steps_lower_the_support_loss(case: Case) -> None:
    if case.spec.method == "lstm-optimizer":
        pytest.skip("before it is trained, a learned optimizer goes anywhere")
    with torch.no_grad():
        losses = case.learner.adapt(case.params(), case.episodes().support, 12).losses
    assert losses is not None
    assert losses.shape == (3, 12)
    assert (losses[:, -1] < losses[:, 0]).all()


@each_case_with_steps
def test_more_steps_continue_where_fewer_stopped(case: Case) -> None:
    with torch.no_grad():
        few, many = (case.learner.adapt(case.params(), case.episodes().support, steps).losses for steps in (3, 6))
    assert few is not None
    assert many is not None
    assert torch.equal(few, many[:, :3])


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
def test_every_tensor_lies_where_the_inputs_do(case: Case) -> None:
    # Tensors on "meta" have no values and refuse to meet those of another device, as those of a GPU do.
    learner, objective, episodes = case.learner, case.objective, case.episodes().to("meta")
    params = {name: value.to("meta").requires_grad_() for name, value in case.params().items()}
    with torch.no_grad():
        state = learner.adapt(params, episodes.support).state
        assert learner.predict(params, state, episodes.query).is_meta
    changes = case.learner.info.objective == "annealed_steps"  # in the course of training
    for progress in (0.0, 1.0) if changes else (1.0,):
        loss = objective(params, episodes, Stage(progress)).loss
        torch.autograd.grad(loss, list(params.values()), allow_unused=True)


@each_case
def test_learning_reduces_the_outer_loss(case: Case) -> None:
    if case.spec.method == "scratch":
        pytest.skip("learns nothing, on purpose")
    learner, objective, episodes = case.learner, case.objective, case.episodes(tasks=4).to(torch.float32)
    generator = torch.Generator().manual_seed(0)
    params = {**learner.init(generator), **objective.init(generator)}
    learned = {name: value.requires_grad_() for name, value in params.items() if name not in learner.buffers()}
    optimizer = torch.optim.Adam(learned.values(), lr=3e-3)
    first = objective(params, episodes, Stage()).loss.item()
    for _ in range(30):
        outcome = objective(params, episodes, Stage())
        if outcome.loss.item() < 0.8 * first:
            return
        optimizer.zero_grad()
        outcome.loss.backward()
        optimizer.step()
        params.update(outcome.buffers)
    pytest.fail(f"the outer loss is {outcome.loss.item():.3f} after 30 steps, and was {first:.3f}")


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
