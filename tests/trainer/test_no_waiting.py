"""Outer steps never have the host wait for the device: it queues the work of the next step while the last one runs.

Tensors here lie on PyTorch's meta device, which has shapes and no values. So whatever asks for a value fails, as does
what depends on one, like the number of places where a mask is true; copies from the host's memory are looked for.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from cases import CASES, Case
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from innerloop_learner import Episodes, InputSpec, Params, Query, Support
from innerloop_learner.acceleration import accelerated
from innerloop_learner.augmentations import augmentations
from innerloop_learner.objectives import Stage, build_objective
from innerloop_trainer.data import AugmentedTasks, EpisodeShape, MixedTasks, TaskSampler, read_augmentations
from innerloop_trainer.data.class_digests import ClassDigest
from innerloop_trainer.data.class_examples import ClassExamples
from innerloop_trainer.data.example_set import ExampleSet
from innerloop_trainer.evaluation import score
from innerloop_trainer.outer_loop import Estimator, OptimizerPlan, OuterLoop, build_estimator, defaults_of
from innerloop_trainer.runs.recent_figures import RecentFigures

DEVICE = torch.device("meta")

WAITING = {
    "partial-maml": "REINFORCE draws options by their probabilities on the CPU, so that every device draws alike",
}
"""Methods in whose steps the host reads what the device has computed, and why."""

NAMES = (
    "classification-task-learned-policy",
    "classification-task-meta_dropout",
    "classification-none-leave_one_out",
    "classification-none-mas",
    "classification-batch-resnet12",
    "classification-batch-vit",
)
"""Ends of the names of more cases, besides one of each method."""


def _representative() -> list[Case]:
    of_methods = {case.spec.method: case for case in CASES if not case.seldom and case.name.endswith("-batch")}
    return [*of_methods.values(), *(case for case in CASES if case.name.endswith(NAMES) and case.spec.method != "anil")]


class WaitedError(AssertionError):
    """The host would wait for the device."""


class NoWaiting(TorchDispatchMode):
    """Refuses copies between host and device that the host waits for, and what the host makes there from its values."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        places = {each.device for each in tree_leaves((args, kwargs, made)) if isinstance(each, Tensor)}
        if len(places) > 1 and not (kwargs or {}).get("non_blocking") and function.overloadpacket in COPYING:
            raise WaitedError(f"{function} of {places}")
        if function.overloadpacket is torch.ops.aten._linalg_check_errors:
            raise WaitedError(f"{function}")  # whether a solution was found
        return made

    def __enter__(self) -> Any:
        self._made = NothingMadeOfValues(DEVICE)
        self._made.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> Any:
        super().__exit__(*error)
        self._made.__exit__(*error)


COPYING = (torch.ops.aten._to_copy, torch.ops.aten.copy_)


class NothingMadeOfValues(TorchFunctionMode):
    """Refuses tensors on a device that are made of numbers of Python, which are copied there."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        if function in (torch.tensor, torch.as_tensor, torch.asarray) and made.device == self._device:
            raise WaitedError(f"{function.__name__}{args}")
        return made


def on_device(value: Tensor) -> Tensor:
    return torch.empty_like(value, device=DEVICE)


def sent_episodes(episodes: Episodes) -> Episodes:
    support, query, classes = episodes.support, episodes.query, episodes.classes
    x, y, mask, ways = map(on_device, (support.x, support.y, support.mask, support.ways))
    return Episodes(
        Support(x, y, mask, ways, support.max_ways),
        Query(on_device(query.x), on_device(query.mask)),
        on_device(episodes.targets),
        None if classes is None else on_device(classes),
    )


def outer_loop(case: Case) -> OuterLoop:
    objective = build_objective(accelerated(case.learner, DEVICE), case.training)
    estimator = build_estimator(defaults_of(case.spec.method).estimator, objective, {})
    return loop_of(estimator, case)


def loop_of(estimator: Estimator, case: Case) -> OuterLoop:
    params = {name: on_device(value) for name, value in case.params(torch.float32).items()}
    return OuterLoop(estimator, params, OptimizerPlan(10, 0.01, 10.0), seed=0)


def step(loop: OuterLoop, case: Case) -> None:
    """An outer step on the device, with the figures that a run takes of it."""
    episodes = sent_episodes(case.episodes(tasks=2).to(torch.float32))
    figures = RecentFigures(DEVICE)
    with NoWaiting():
        estimate = loop.step(episodes, 1)
        figures.add(estimate.loss, score(estimate.outputs, estimate.answered or episodes).mean())


@pytest.mark.parametrize("case", _representative(), ids=lambda case: case.name)
def test_no_outer_step_waits_for_the_device(case: Case) -> None:
    if case.spec.method in WAITING:
        with pytest.raises((WaitedError, NotImplementedError)):
            step(outer_loop(case), case)
    else:
        step(outer_loop(case), case)


@pytest.mark.parametrize("estimator", ["es", "reptile"])
def test_numbers_that_the_host_draws_are_not_waited_for(estimator: str) -> None:
    case = next(case for case in CASES if case.name == "maml-regression-none")
    objective = build_objective(accelerated(case.learner, DEVICE), case.training)
    settings = {"population": 4} if estimator == "es" else {}
    step(loop_of(build_estimator(estimator, objective, settings), case), case)


class NothingRead(TorchDispatchMode):
    """Refuses what a device could do only once the host has read values, on the CPU, which has generators."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        masks = [each for each in tree_leaves(args[1:]) if isinstance(each, Tensor) and each.dtype == torch.bool]
        if function.overloadpacket in READING or (masks and function.overloadpacket in INDEXING):
            raise WaitedError(f"{function}")
        return function(*args, **(kwargs or {}))


READING = tuple(
    getattr(torch.ops.aten, name)
    for name in (
        "_local_scalar_dense",
        "_linalg_check_errors",
        "nonzero",
        "masked_select",
        "_unique2",
        "bincount",
        "equal",
    )
)
INDEXING = (torch.ops.aten.index, torch.ops.aten.index_put)
SHAPE = EpisodeShape(3, 2, 2)


def split(domains: bool = False) -> ClassExamples:
    """Six classes of random images."""
    random, names = np.random.default_rng(0), tuple("abcdef")
    images = random.integers(0, 256, (36, 1, 28, 28), np.uint8)
    digests = tuple(ClassDigest((name,), name) for name in names)
    of_domains = ("one", "one", "one", "two", "two", "two") if domains else None
    data = ExampleSet(names, np.full(6, 6), images, digests, domains=of_domains)
    return ClassExamples("test", data, InputSpec((1, 28, 28), "uint8"), torch.device("cpu"))


@pytest.mark.parametrize(
    ("sampler", "shape"),
    [
        (split(), SHAPE),
        (split(domains=True), SHAPE),
        (split(), replace(SHAPE, wrong_labels=0.5)),
        (MixedTasks(split(), 0.5), SHAPE),
        (split().without_labels(read_augmentations("affine,elastic")), SHAPE),
        *((AugmentedTasks(split(), read_augmentations(name)), SHAPE) for name in augmentations if name != "colour"),
    ],
    ids=["plain", "domains", "wrong labels", "mixed", "unlabelled", *(n for n in augmentations if n != "colour")],
)
def test_no_draw_of_tasks_reads_the_device(sampler: TaskSampler, shape: EpisodeShape) -> None:
    generator = torch.Generator().manual_seed(0)
    sampler.sample(shape, 2, generator)  # what is kept on the device from then on
    with NothingMadeOfValues(torch.device("cpu")), NothingRead():
        sampler.sample(shape, 2, generator)


READS = {
    "item": lambda x: x.sum().item(),
    "branch": lambda x: 1 if x.sum() > 0 else 0,
    "mask": lambda x: x[x > 0].sum(),
    "list": lambda x: x.flatten()[:2].tolist(),
    "number": lambda x: x.sum() + torch.tensor(1.0, device=x.device),
    "copy": lambda x: x.sum() + torch.ones(1).to(x.device),
    "solution": lambda x: torch.linalg.solve(x @ x.mT, x),
}


@pytest.mark.parametrize("how", READS)
def test_what_waits_is_found(how: str) -> None:
    case = next(case for case in CASES if case.name == "maml-regression-none")

    class Reading(type(case.objective)):  # type: ignore[misc]
        def __call__(self, params: Params, episodes: Episodes, stage: Stage) -> Any:
            READS[how](episodes.support.x)
            return super().__call__(params, episodes, stage)

    objective = Reading(accelerated(case.learner, DEVICE), case.objective.settings)
    with pytest.raises((WaitedError, RuntimeError, NotImplementedError)):
        step(loop_of(build_estimator("backpropagation", objective, {}), case), case)
