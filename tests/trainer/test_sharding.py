"""A batch of tasks that several processes compute gives what one process gives, for every estimator, or is refused."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import pytest
import torch
from cases import CASES, Case, wave_case
from estimates import assert_same
from torch import Tensor

from innerloop_learner import Episodes, InputSpec, LearnerSpec, Params
from innerloop_learner.learner import methods
from innerloop_learner.objectives import Objective, Stage
from innerloop_learner.objectives.transformed import Transformed
from innerloop_learner.parts import Part, computing, current_part
from innerloop_learner.transformations import build_transformation
from innerloop_trainer.config import ConfigError
from innerloop_trainer.outer_loop import Estimate, Estimator, build_estimator, estimators
from innerloop_trainer.parallel import Group, Sharded, check_in_parts
from innerloop_trainer.parallel.shard import Shard

T = TypeVar("T")

STAGE = Stage(0.05, seed=3)
"""A stage at which losses that change in the course of training are those of its beginning."""

LABELLED = LearnerSpec("protonet", InputSpec((6,)), max_ways=4, train_classes=7, backbone="adapter")
MAPPED = Case(replace(LABELLED, backbone_settings={"normalise": True}))
IMPLICIT = wave_case("imaml", [6], {"steps": 2, "rate": 0.05})
CHOICES = next(case for case in CASES if case.spec.method == "partial-maml" and case.spec.task_kind == "regression")
PERSISTENT = wave_case("lstm-optimizer", [3], {"steps": 4, "hidden": 2})


class Threads(Group):
    """Processes for a test, each a thread of this one."""

    def __init__(self, rank: int, size: int, barrier: threading.Barrier, given: dict[int, Tensor]) -> None:
        self.rank, self.size, self._barrier, self._given = rank, size, barrier, given

    def sum(self, value: Tensor) -> Tensor:
        self._given[self.rank] = value
        self._barrier.wait(60)
        total = torch.stack([self._given[rank] for rank in range(self.size)]).sum(0)
        self._barrier.wait(60)
        return total


def in_all(size: int, work: Callable[[Group], T]) -> list[T]:
    """What each process gives."""
    barrier, given = threading.Barrier(size), dict[int, Tensor]()

    def run(rank: int) -> T:
        try:
            return work(Threads(rank, size, barrier, given))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size)))


def by(name: str, case: Case, **settings: Any) -> Estimator:
    return build_estimator(name, case.objective, settings)


def disturbed(case: Case) -> Objective:
    return Transformed(case.objective, build_transformation("feature_wise", case.learner, {}))


PROTONET = next(case for case in CASES if case.name == "protonet-classification-batch")
OTHERS = {
    "implicit": (IMPLICIT, by("implicit", IMPLICIT)),
    "reptile": (wave_case("reptile", [6], {"steps": 2, "rate": 0.05}), None),
    "reinforce": (CHOICES, by("reinforce", CHOICES)),
    "es": (wave_case("maml", [6], {"steps": 2, "rate": 0.05}), None),
    "discriminant": (MAPPED, by("discriminant", MAPPED)),
    "nothing": (MAPPED, by("nothing", MAPPED)),
}


def assert_same_in_parts(
    estimator: Estimator, params: Params, episodes: Episodes, size: int, plain: Estimator | None = None
) -> None:
    """Two outer steps, so that what is carried counts, too, as `plain` takes them, or the estimator itself, alone."""
    plain = plain or estimator
    expected = [plain.estimate(params, plain.start(params), episodes, STAGE)]
    expected.append(plain.estimate(params, expected[0].carried, episodes, replace(STAGE, seed=4)))

    def work(group: Group) -> list[Estimate]:
        shared = Sharded(estimator, group)
        first = shared.estimate(params, shared.start(params), episodes, STAGE)
        return [first, shared.estimate(params, first.carried, episodes, replace(STAGE, seed=4))]

    for found in in_all(size, work):
        for each, whole in zip(found, expected, strict=True):
            assert_same(each, whole)


def few_of_each() -> list[Any]:
    """All cases, of which but one for each objective and norm, and those with more than a method, are slow."""
    seen, cases = set[tuple[str, str]](), []
    for case in CASES:
        kind = (methods[case.spec.method].info.objective, str(case.spec.backbone_settings.get("norm")))
        plain = case.spec.weighting == "none" and case.spec.support_policy == "none" and case.spec.backbone == "conv4"
        slow = kind in seen and plain and case.spec.backbone_settings.get("noise") is None
        seen.add(kind)
        cases.append(pytest.param(case, id=case.name, marks=[pytest.mark.slow] * slow))
    return cases


@pytest.mark.parametrize("case", few_of_each())
def test_backpropagation_in_parts_of_different_sizes_equals_that_of_the_whole_batch(case: Case) -> None:
    name = "reinforce" if case.learner.choices() else "backpropagation"
    assert_same_in_parts(by(name, case), case.params(), case.episodes(tasks=3), 2)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", OTHERS)
def test_other_estimators_in_parts_equal_themselves(name: str, size: int) -> None:
    case, estimator = OTHERS[name]
    estimator = estimator or by(name, case)
    assert_same_in_parts(estimator, case.params(), case.episodes(tasks=5), size)


@pytest.mark.parametrize("method", ["maml", "maml++"])
def test_recomputed_steps_in_parts_equal_kept_ones_of_the_whole_batch(method: str) -> None:
    case = wave_case(method, [6], {"steps": 2, "rate": 0.05}, norm="batch")
    recomputed = build_estimator("backpropagation", case.recomputed, {})
    assert_same_in_parts(recomputed, case.params(), case.episodes(tasks=5), 2, by("backpropagation", case))


def test_a_transformation_of_each_task_is_that_of_the_whole_batch() -> None:
    objective = disturbed(PROTONET)
    params = {**PROTONET.params(), **{n: v.double() for n, v in objective.init(torch.Generator()).items()}}
    params = {**params, **PROTONET.params()}
    assert_same_in_parts(build_estimator("backpropagation", objective, {}), params, PROTONET.episodes(tasks=5), 3)


def test_every_estimator_says_whether_its_tasks_can_be_divided() -> None:
    divided = {name for name in estimators if estimators[name].in_parts} | {"es"}
    assert divided == {"backpropagation", *OTHERS}
    assert set(estimators) - divided == {"mldg", "pilot", "pes", "darts"}


def test_an_estimator_that_needs_all_tasks_is_refused() -> None:
    with pytest.raises(ConfigError, match="the estimator pes computes all tasks of an outer step in one process"):
        check_in_parts(by("pes", PERSISTENT), 4, 2)
    pooled = wave_case("maml", [6], {"steps": 2}, norm="batch")
    with pytest.raises(ConfigError, match="the estimator es computes"):
        check_in_parts(by("es", pooled), 4, 2)
    check_in_parts(by("es", OTHERS["es"][0]), 4, 2)


def test_more_processes_than_tasks_are_refused() -> None:
    check_in_parts(by("backpropagation", PROTONET), 3, 3)
    with pytest.raises(ConfigError, match=r"2 processes can't divide .* of which there are 1; raise --meta-batch to 2"):
        check_in_parts(by("backpropagation", PROTONET), 1, 2)


def test_parts_are_neighbours_and_of_about_the_same_size() -> None:
    rows = in_all(3, lambda group: Shard(group, 8).rows)
    assert [(each.start, each.stop) for each in rows] == [(0, 2), (2, 5), (5, 8)]


def test_a_sum_over_parts_of_different_sizes_has_first_and_second_derivatives() -> None:
    x = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def slopes(part: Part, own: Tensor) -> tuple[Tensor, Tensor]:
        """With the mean m of exp(x): of the mean of x^3 m^2, and of that of the squared slope; in numbers of x."""
        own = own.clone().requires_grad_()
        centre = part.sum(own.exp().sum()) / len(x)
        (found,) = torch.autograd.grad((own**3 * centre**2).mean(), own, create_graph=True)
        first = found * len(own)
        (second,) = torch.autograd.grad(first.square().mean(), own)
        return first.detach(), second * len(own)

    expected = slopes(Part(), x)

    def work(group: Group) -> tuple[Tensor, Tensor]:
        shard = Shard(group, len(x))
        return slopes(shard, x[shard.rows])

    for found, whole in zip(zip(*in_all(2, work), strict=True), expected, strict=True):
        torch.testing.assert_close(torch.cat(found), whole)


def test_numbers_for_some_tasks_of_a_part_are_not_drawn_wrongly() -> None:
    with pytest.raises(ValueError, match="for all tasks of a part"):
        in_all(2, lambda group: Shard(group, 4).total(1))


def test_outside_of_parts_a_batch_is_whole() -> None:
    with computing(Shard(Group(), 4)):
        assert isinstance(current_part(), Shard)
    assert current_part().total(4) == 4
