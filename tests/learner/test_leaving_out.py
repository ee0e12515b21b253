"""Answers to support examples by the task without them: those of adapting anew, or refused."""

from dataclasses import replace

import pytest
import torch
from cases import CASES, Case
from test_conformance import assert_same
from torch import Tensor

from innerloop_learner import InputSpec, LearnerSpec, Query, Support, leaving_out
from innerloop_learner.diagnosis import left_out_parts
from innerloop_learner.learner import TaskError, methods
from innerloop_learner.norms import norms

LEAVING_OUT = {
    *("anil", "anml", "baseline", "baseline++", "knn", "lr-d2", "mann", "matching", "matching-fce", "nearest-centroid"),
    *("oml", "protonet", "r2d2", "relation", "siamese", "simclr", "snail"),
}
"""Methods that leave examples out of features that are computed once, where the backbone lets them."""

ALONE = {"batch", "group", "layer", "none", "position"}
"""Norms that read one example alone."""

ABLE = [case for case in CASES if case.learner.leaves_out and case.spec.task_kind == "classification"]
UNABLE = [case for case in CASES if not case.learner.leaves_out]


each_able = pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name, marks=pytest.mark.slow if case.seldom else ()) for case in ABLE]
)


def unequal(case: Case, seed: int = 1) -> Support:
    """Three tasks of 4, 3 and 2 classes, which have 1 to 4 examples each; padded, in mixed order."""
    episodes = case.episodes(shots=4, ways=4, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    counts = torch.tensor([[4, 2, 3, 1], [4, 4, 3, 0], [2, 3, 0, 0]])
    support = episodes.support
    place = torch.arange(16) % 4
    mask = place < counts.gather(1, support.y)
    orders = torch.stack([torch.randperm(16, generator=generator) for _ in range(3)])
    # Padding comes last, as wherever tasks share a batch, and holds what must not matter.
    orders = orders.gather(1, (~mask.gather(1, orders)).long().argsort(dim=1, stable=True))
    mask, y = mask.gather(1, orders), support.y.gather(1, orders)
    x = support.x.gather(1, orders.view(3, 16, *[1] * (support.x.dim() - 2)).expand_as(support.x))
    x = torch.where(mask.view(3, 16, *[1] * (x.dim() - 2)), x, 7.0)
    return replace(support, x=x, y=y.where(mask, 0), mask=mask, ways=torch.tensor([4, 3, 2]))


def parts_of(support: Support, most: int) -> list[list[Tensor]]:
    """The parts that each task is left out in."""
    return [
        [torch.from_numpy(part) for part in left_out_parts(y[mask].numpy(), most)]
        for y, mask in zip(support.y, support.mask, strict=True)
    ]


def table_of(parts: list[list[Tensor]]) -> Tensor:
    """Places [T, P, L] of parts, padded by -1."""
    shape = len(parts), max(map(len, parts)), max(len(part) for of_task in parts for part in of_task)
    table = torch.full(shape, -1)
    for task, of_task in enumerate(parts):
        for number, part in enumerate(of_task):
            table[task, number, : len(part)] = part
    return table


def adapted_anew(case: Case, support: Support, parts: list[list[Tensor]]) -> Tensor:
    """Logits [T, S, W] by adapting to each task without each part, one after the other; NaN for what no part has."""
    params, answers = case.params(), torch.full((*support.y.shape, support.max_ways), torch.nan, dtype=torch.float64)
    for task, of_task in enumerate(parts):
        real = int(support.mask[task].sum())
        for part in of_task:
            kept = [place for place in range(real) if place not in part.tolist()]
            rest = Support(
                *(getattr(support, name)[task : task + 1, kept] for name in ("x", "y", "mask")),
                support.ways[task : task + 1],
                support.max_ways,
            )
            query = Query(support.x[task : task + 1, part], torch.ones(1, len(part), dtype=torch.bool))
            state = case.learner.adapt(params, rest).state
            answers[task, part] = case.learner.predict(params, state, query)[0]
    return answers


@pytest.mark.parametrize("most", [100, 5], ids=["one by one", "in parts"])
@pytest.mark.parametrize("balance", ["equal", "proportional"])
@each_able
@torch.no_grad()
def test_left_out_examples_are_answered_as_by_adapting_anew_without_them(case: Case, balance: str, most: int) -> None:
    case = Case(replace(case.spec, class_balance=balance))  # type: ignore[arg-type]
    support = unequal(case)
    parts = parts_of(support, most)
    table = table_of(parts)
    assert (table.shape[2] > 1) == (most == 5)
    found = case.learner.left_out(case.params(), support, table)
    assert_same(adapted_anew(case, support, parts), found)
    assert torch.equal(found.isnan().all(2), found.isnan().any(2))
    assert found.isnan().all(2).sum() == 3 * 16 - sum(len(part) for of_task in parts for part in of_task)
    assert torch.isneginf(found[2][~found[2].isnan().any(1), 2:]).all()


@each_able
@torch.no_grad()
def test_however_few_parts_are_computed_at_once_the_answers_are_the_same(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    support = unequal(case)
    table = table_of(parts_of(support, 5))
    together = case.learner.left_out(case.params(), support, table)
    monkeypatch.setattr(leaving_out, "NUMBERS_AT_ONCE", 1)
    assert_same(together.nan_to_num(), case.learner.left_out(case.params(), support, table).nan_to_num())


@pytest.mark.parametrize("case", UNABLE, ids=[case.name for case in UNABLE])
def test_methods_that_cannot_leave_out_say_that_they_must_adapt_anew(case: Case) -> None:
    support = case.episodes().support
    with pytest.raises(TaskError, match="must adapt anew to what is left"):
        case.learner.left_out(case.params(), support, torch.zeros(3, 1, 1, dtype=torch.int64))


def test_which_methods_and_norms_leave_examples_out() -> None:
    assert {name for name in methods if methods[name].embeds_alone} == LEAVING_OUT
    image = LearnerSpec("protonet", InputSpec((1, 16, 16)), backbone_settings={"width": 8, "downsample": "stride"})
    of_norms = {norm: replace(image, backbone_settings={**image.backbone_settings, "norm": norm}) for norm in norms}
    assert {norm for norm, spec in of_norms.items() if Case(spec).learner.leaves_out} == ALONE
    assert {case.spec.method for case in ABLE} == LEAVING_OUT
    noisy = replace(of_norms["batch"], method="anil", backbone_settings={"noise": "meta_dropout", "norm": "batch"})
    copying = replace(of_norms["batch"], support_policy="learned")
    assert not any(Case(spec).learner.leaves_out for spec in (noisy, copying))


@torch.no_grad()
def test_ridge_regression_leaves_out_in_float32_where_examples_outnumber_features() -> None:
    case = Case(LearnerSpec("r2d2", InputSpec((8,)), backbone="adapter", max_ways=3))
    params, support = case.params(), case.episodes(shots=20).support
    params["ridge.log_penalty"] = torch.tensor(0.01, dtype=torch.float64).log()
    table = table_of(parts_of(support, 100))
    found = case.learner.left_out(
        {name: value.float() for name, value in params.items()}, support.to(torch.float32), table
    )
    torch.testing.assert_close(found.double(), case.learner.left_out(params, support, table), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_ridge_regression_adapts_for_each_part_where_systems_of_all_classes_would_take_much_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (case,) = [case for case in ABLE if case.name == "r2d2-classification-batch"]
    support = unequal(case)
    table = table_of(parts_of(support, 100))
    at_once = case.learner.left_out(case.params(), support, table)
    monkeypatch.setattr(leaving_out, "NUMBERS_AT_ONCE", 1)
    monkeypatch.setattr("innerloop_learner.methods.r2d2.solve_without_waiting", refuse_systems_of_classes)
    assert_same(at_once.nan_to_num(), case.learner.left_out(case.params(), support, table).nan_to_num())


def refuse_systems_of_classes(system: Tensor, right: Tensor) -> Tensor:
    assert system.dim() == 3
    return torch.linalg.solve(system, right)


@torch.no_grad()
def test_examples_are_left_out_of_learners_that_take_their_features() -> None:
    """A learner that takes features in the place of inputs leaves out as the whole one does."""
    (case,) = [case for case in ABLE if case.name == "protonet-classification-batch"]
    support, params = unequal(case), case.params()
    table = table_of(parts_of(support, 100))
    values = case.learner.backbone.apply(params, support.x, support.mask).values
    assert_same(
        case.learner.left_out(params, support, table).nan_to_num(),
        case.learner.on_features.left_out(params, replace(support, x=values), table).nan_to_num(),
    )
