"""Outer gradients are the same where inner steps are recomputed, and what is kept for them does not grow with steps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import CASES, NORMS, Case, wave_case
from runs import DIGITS, training
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from innerloop_learner import Episodes, Params
from innerloop_learner.gradient_learner import GradientLearner
from innerloop_learner.objectives import Objective, Stage
from innerloop_learner.objectives.annealed_steps import FIRST_ORDER_SHARE, MULTI_STEP_SHARE
from innerloop_learner.recomputation import recomputed
from innerloop_trainer.config import ConfigError, Precision
from innerloop_trainer.outer_loop import build_estimator

ADAPTING = [
    case
    for case in CASES
    if isinstance(case.learner, GradientLearner)
    and not case.seldom
    and case.spec.backbone in ("mlp", "conv4")
    and (case.spec.task_kind == "regression" or case.spec.method == "maml" or not case.name.endswith(NORMS))
]
"""Every method with inner steps, among them some with weights of examples, noise or a support policy."""

STAGES = {"every step's loss": MULTI_STEP_SHARE / 2, "first order": FIRST_ORDER_SHARE / 2, "at last": 1.0}
"""Shares of training after which the objective of MAML++ is another one."""


def gradient(objective: Objective, params: Params, episodes: Episodes, stage: Stage) -> Params:
    learned = {n: v.detach().requires_grad_() for n, v in params.items() if n not in objective.learner.buffers()}
    outcome = objective({**params, **learned}, episodes, stage)
    values = torch.autograd.grad(outcome.loss, list(learned.values()), materialize_grads=True)
    return {**dict(zip(learned, values, strict=True)), **outcome.buffers, "loss": outcome.loss.detach()}


def assert_equal(found: Params, expected: Params) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize("case", ADAPTING, ids=lambda case: case.name)
def test_gradients_are_those_of_steps_that_are_kept(case: Case) -> None:
    params, episodes = case.params(), case.episodes(tasks=2)
    for progress in STAGES.values() if case.spec.method == "maml++" else [1.0]:
        stage = Stage(progress, seed=3)
        expected = gradient(case.objective, params, episodes, stage)
        assert_equal(gradient(case.recomputed, params, episodes, stage), expected)


@pytest.mark.parametrize("truncate", [0, 2])
def test_gradients_of_a_truncated_unroll_are_the_same(truncate: int) -> None:
    case = wave_case("lstm-optimizer", [4], {"steps": 5, "hidden": 2}, {"truncate": truncate})
    params, episodes = case.params(), case.episodes()
    expected = gradient(case.objective, params, episodes, Stage())
    assert_equal(gradient(case.recomputed, params, episodes, Stage()), expected)


def test_gradients_that_are_differentiated_again_are_the_same() -> None:
    case = wave_case("maml", [4], {"steps": 2, "rate": 0.05}, activation="tanh")
    episodes = replace(case.episodes(tasks=4), domains=torch.tensor([0, 1, 0, 1]))
    found, expected = (
        build_estimator("mldg", objective, {}).estimate(case.params(), {}, episodes, Stage(seed=2))
        for objective in (case.recomputed, case.objective)
    )
    assert_equal(found.gradients, expected.gradients)


class Memory(TorchDispatchMode):
    """Notes what memory tensors are given while it is there, and tells how much of it is still in use."""

    def __init__(self) -> None:
        super().__init__()
        self._given: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for each in tree_leaves(made):
            if isinstance(each, Tensor):
                storage = StorageWeakRef(each.untyped_storage())
                self._given[storage.cdata] = storage, each.untyped_storage().nbytes()
        return made

    @property
    def bytes_in_use(self) -> int:
        return sum(size for storage, size in self._given.values() if not storage.expired())


def kept_bytes(objective: Objective, case: Case) -> int:
    """Memory that the outer loss keeps for its gradient."""
    params, episodes = {name: value.requires_grad_() for name, value in case.params().items()}, case.episodes()
    with Memory() as memory:
        loss = objective(params, episodes, Stage(MULTI_STEP_SHARE / 2)).loss
    kept = memory.bytes_in_use
    del loss
    return kept


@pytest.mark.parametrize("method", ["maml", "meta-sgd", "maml++", "lstm-optimizer"])
def test_activations_of_one_step_are_kept_whatever_the_number_of_steps(method: str) -> None:
    settings: dict[str, Any] = {"hidden": 2} if method == "lstm-optimizer" else {}
    few, many = (wave_case(method, [64], {"steps": steps, **settings}, norm="task") for steps in (1, 9))
    grown, recomputed_grown = (
        kept_bytes(of_many, many) - kept_bytes(of_few, few)
        for of_many, of_few in ((many.objective, few.objective), (many.recomputed, few.recomputed))
    )
    assert 0 < recomputed_grown < grown / 4


@pytest.mark.parametrize(("first", "second", "what"), [(2, 1, "fewer"), (1, 2, "more")])
def test_a_function_that_does_something_else_when_it_runs_again_is_refused(first: int, second: int, what: str) -> None:
    times = iter([first, second])

    def sines(x: Tensor) -> Tensor:
        for _ in range(next(times)):
            x = x.sin()
        return x

    result = recomputed(sines)(torch.tensor(1.0, requires_grad=True))
    with pytest.raises(RuntimeError, match=f"saved {what} tensors when it ran again"):
        result.backward()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_recomputes_where_it_is_told_to_and_serves_what_it_ever_did(precision: Precision, tmp_path: Path) -> None:
    config = replace(DIGITS, precision=precision)
    kept, again = (training(replace(config, recompute=wanted), tmp_path).plan for wanted in (False, True))
    assert again.estimator.objective.learner.recompute
    assert not getattr(again.learner, "recompute")  # noqa: B009 - the plan's learner may be any, and this validates
    params = kept.init(torch.Generator().manual_seed(0))
    episodes = kept.source.train.sample(kept.episodes, 2, torch.Generator().manual_seed(0))
    found, expected = (plan.estimator.estimate(params, {}, episodes, Stage(seed=1)) for plan in (again, kept))
    for name, value in expected.gradients.items():
        assert torch.equal(found.gradients[name], value), name


@pytest.mark.parametrize(
    ("method", "estimator"),
    [("protonet", "backpropagation"), ("baseline", "backpropagation"), ("reptile", "reptile"), ("imaml", "implicit")],
)
def test_training_that_cannot_recompute_steps_says_so(method: str, estimator: str, tmp_path: Path) -> None:
    config = replace(DIGITS, method=method, settings={}, recompute=True)
    with pytest.raises(ConfigError, match=f"training {method} by {estimator} can't recompute .* leave --recompute"):
        training(config, tmp_path)
