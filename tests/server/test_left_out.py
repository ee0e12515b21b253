"""Examples that are left out of a support set: answered from features that are computed once, or by adapting anew."""

import asyncio
import time
from dataclasses import replace

import numpy as np
import pytest
from bundles import FIXED_WAYS, GRADIENTS, IMAGE, PROTOTYPES, a_calibration, write_bundle
from test_worker import computed

from innerloop_learner.diagnosis import left_out_parts
from innerloop_server.adaptations.keeper import Keeper
from innerloop_server.adaptations.stores.memory import MemoryStore
from innerloop_server.domain.adaptations import KeepOptions
from innerloop_server.domain.callers import Caller, OwnerLimits
from innerloop_server.domain.deadline import Deadline
from innerloop_server.domain.errors import DeadlinePassedError, OverloadedError
from innerloop_server.domain.tasks import AdaptTask, SupportSet
from innerloop_server.domain.timings import Operation
from innerloop_server.engine.interface import AbandonedError, LeaveOutBatch
from innerloop_server.engine.pytorch.engine import TorchEngine, TorchSettings
from innerloop_server.models.repository import ModelRepository
from innerloop_server.scheduling import policy
from innerloop_server.scheduling.admission import QueueLimits
from innerloop_server.scheduling.lanes import Lanes
from innerloop_server.scheduling.policy import BatchLimits
from innerloop_server.scheduling.scheduler import Scheduler
from innerloop_server.serving.diagnoser import jobs_of, most_work, work_of
from innerloop_server.serving.local import LocalServing
from innerloop_server.serving.rate_limits import RateLimits

ME = Caller("me")
STEPS = {"steps": 3, "max_steps": 100_000, "rate": 0.1}
SPECS = {
    "prototypes": PROTOTYPES,
    "ridge": replace(PROTOTYPES, method="r2d2"),
    "neighbours": replace(PROTOTYPES, method="knn"),
    "head": replace(PROTOTYPES, method="anil", max_ways=FIXED_WAYS, settings=STEPS),
}


def random_support(seed, ways, size):
    random = np.random.default_rng(seed)
    y = np.concatenate([np.arange(ways), random.integers(0, ways, size - ways)])
    return SupportSet(random.integers(0, 256, (size, *IMAGE), np.uint8), y, ways)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, spec in {**SPECS, "body": GRADIENTS}.items():
        write_bundle(folder / name, spec)
    return folder


class Counting(RateLimits):
    """No limits; notes the examples of each request."""

    def __init__(self):
        super().__init__(OwnerLimits())
        self.spent = []

    def spend(self, caller, examples):
        super().spend(caller, examples)
        self.spent.append(examples)


class Serving:
    """What serves a folder of models."""

    def __init__(self, folder, metrics):
        engine = TorchEngine(TorchSettings("cpu", lanes=1))
        self.lanes, self.limits = Lanes(1), Counting()
        self.repository = ModelRepository(folder, engine, self.lanes.call, [])
        queue = BatchLimits(8, 10**8), QueueLimits(100, 10**8, seconds=60.0)
        self.scheduler = Scheduler(self.lanes, 1, *queue, dict.fromkeys(Operation, 1.0), metrics)
        keeper = Keeper(MemoryStore(), 10**6, metrics)
        self.local = LocalServing(self.repository, self.scheduler, keeper, metrics, self.limits)

    async def task(self, name, support, steps=None):
        await self.repository.load(name)
        model = self.repository.get(name)
        if steps is None:
            steps = model.description.traits.default_steps
        return AdaptTask(model.served, support, tuple("abcde"[: support.ways]), steps)

    async def stop(self):
        """Wait until nothing is computed any more, and end the thread that would outlive the event loop."""
        self.scheduler.stop()
        assert await self.lanes.stop(30)

    async def diagnosis(self, task, deadline=None):
        return (await self.local.adapt(ME, task, KeepOptions(60.0), deadline or Deadline(), diagnose=True)).diagnosis


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("by", ["thread", "worker"])
def test_a_batch_of_support_sets_is_answered_as_by_adapting_each_without_its_parts(folder, name, by):
    model = TorchEngine(TorchSettings("cpu", lanes=2)).load(name, folder / name)
    assert model.feature_size == 16
    steps, width = model.description.traits.default_steps, model.description.head_width(4)
    tasks = [random_support(seed, ways, size) for seed, (ways, size) in enumerate(((2, 5), (4, 9), (3, 12)))]
    parts = [left_out_parts(task.y, most) for task, most in zip(tasks, (100, 100, 4), strict=True)]
    batch = LeaveOutBatch(tasks, parts, steps, width)
    result = computed(by, model, batch)
    assert result.seconds.keys() == {Operation.LEAVE_OUT}
    assert not result.adapted
    for task, of_task, found in zip(tasks, parts, result.answers, strict=True):
        wanted = []
        for part in of_task:
            rest = SupportSet(np.delete(task.x, part, 0), np.delete(task.y, part), task.ways)
            (adapted,) = model.adapt([rest], steps, width)
            wanted.append(model.predict([adapted.state], [task.x[part]])[0])
        for each in ("logits", "probabilities"):
            together = np.concatenate([getattr(answers, each) for answers in wanted])
            np.testing.assert_allclose(getattr(found, each), together, rtol=1e-3, atol=1e-4)


def test_an_inner_loop_without_parts_ends_between_two_steps_when_nobody_waits_any_more(folder):
    model = TorchEngine(TorchSettings("cpu", lanes=1)).load("head", folder / "head")
    task = random_support(0, 2, 6)
    with pytest.raises(AbandonedError):
        model.compute(LeaveOutBatch([task], [left_out_parts(task.y)], 10**6, 5, lambda: True), alone=True)


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("name", SPECS)
async def test_a_diagnosis_is_one_job_or_several_and_says_what_adapting_anew_says(
    folder, metrics, value, monkeypatch, name, calibrated
):
    serving = Serving(folder, metrics)
    task = await serving.task(name, random_support(0, 3, 14))
    model = serving.repository.get(name)
    if calibrated:
        model.calibration = a_calibration()
    at_once = await serving.diagnosis(task)
    assert value("innerloop_batch_size_sum", operation="leave_out", model=name) == 1
    monkeypatch.setattr(policy, "LEFT_OUT_NUMBERS", 14 * 3 * 16 * 4)
    in_jobs = await serving.diagnosis(task)
    jobs = len(jobs_of(model, task))
    assert jobs > 1
    assert value("innerloop_batch_size_sum", operation="leave_out", model=name) == 1 + jobs
    monkeypatch.setattr(model, "feature_size", 0)
    anew = await serving.diagnosis(task)
    assert value("innerloop_batch_size_sum", operation="leave_out", model=name) == 1 + jobs
    for found in (at_once, in_jobs):
        assert found.doubts == pytest.approx(anew.doubts, rel=1e-3, abs=1e-4, nan_ok=True)
        assert found.likely_classes == anew.likely_classes
        assert found.expected_accuracy == anew.expected_accuracy


async def test_a_diagnosis_counts_the_examples_that_its_jobs_read_against_the_limits_of_its_caller(folder, metrics):
    serving = Serving(folder, metrics)
    for name, jobs in (("prototypes", 1), ("head", 1), ("body", 20)):
        task = await serving.task(name, random_support(0, 2, 20))
        model = serving.repository.get(name)
        assert len(jobs_of(model, task)) == jobs
        assert work_of(model, task) <= most_work(model, 20)
        await serving.diagnosis(task)
        assert serving.limits.spent[-1] == 20 + jobs * 20
    many = replace(task, support=random_support(0, 2, 500))
    assert work_of(model, many) == 100 * 500 == most_work(model, 500)


async def test_a_diagnosis_that_takes_longer_than_its_deadline_ends_with_it_and_the_next_caller_is_served(
    folder, metrics
):
    serving = Serving(folder, metrics)
    endless = await serving.task("head", random_support(0, 2, 10), steps=100_000)
    started = time.monotonic()
    with pytest.raises(DeadlinePassedError):
        await serving.diagnosis(endless, Deadline(0.3))
    await serving.diagnosis(replace(endless, steps=1))
    assert time.monotonic() - started < 30
    await serving.stop()


async def test_a_diagnosis_that_can_be_known_to_take_too_long_is_refused_at_once(folder, metrics):
    serving = Serving(folder, metrics)
    task = await serving.task("head", random_support(0, 2, 10), steps=10)
    for _ in range(3):
        await serving.diagnosis(task)
    with pytest.raises(OverloadedError):
        await serving.diagnosis(replace(task, steps=100_000), Deadline(1.0))
    await serving.stop()


async def test_nothing_is_computed_for_a_caller_who_leaves_in_the_middle_of_a_diagnosis(folder, metrics):
    serving = Serving(folder, metrics)
    endless = await serving.task("head", random_support(0, 2, 10), steps=100_000)
    asking = asyncio.create_task(serving.diagnosis(endless))
    while not serving.scheduler.busy:
        await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await serving.stop()
