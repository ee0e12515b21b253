"""More load than can be computed, on a clock that jumps: what is answered in time, who gets it, and who is refused."""

import asyncio
import random
import time
from dataclasses import dataclass, field

import numpy as np
import pytest
from fake_clock import FakeLanes, run

from innerloop_server.domain.callers import Caller, Priority
from innerloop_server.domain.deadline import Deadline
from innerloop_server.domain.errors import DeadlinePassedError, OverloadedError
from innerloop_server.domain.tasks import SupportSet
from innerloop_server.domain.timings import Operation
from innerloop_server.engine.interface import AdaptBatch
from innerloop_server.scheduling.admission import QueueLimits
from innerloop_server.scheduling.buckets import adapt_bucket
from innerloop_server.scheduling.job import AdaptJob, PredictJob
from innerloop_server.scheduling.policy import HEAD_START, BatchLimits
from innerloop_server.scheduling.scheduler import Scheduler

WARM_UP = 2.0
"""Seconds of a load in which the server measures how long batches take; they don't count."""


@dataclass
class Machine:
    """A device: lanes, largest batch, and seconds of a batch by its number of requests."""

    side_by_side: int
    ahead: int
    largest: int
    seconds: object

    @property
    def capacity(self):
        return self.side_by_side * self.largest / self.seconds(self.largest)


CPU = Machine(side_by_side=2, ahead=0, largest=5, seconds=lambda tasks: 0.002 + 0.018 * tasks)
GPU = Machine(side_by_side=1, ahead=1, largest=32, seconds=lambda tasks: 0.01 + 0.001 * tasks)


@dataclass
class Load:
    """What became of the requests of one account: latencies of answers, those refused at once, those dropped."""

    answered: list = field(default_factory=list)
    late: int = 0
    refused: list = field(default_factory=list)
    dropped: int = 0

    def latency(self, part):
        return float(np.quantile(self.answered, part))


def adapt_job(model, account, deadline, examples=5, priority=Priority.NORMAL):
    support = SupportSet(np.zeros((examples, 1), np.uint8), np.zeros(examples, np.int64), 2)
    bucket = adapt_bucket(support, 1, 2, asks=False)
    caller = Caller(account, priority=priority)
    return AdaptJob(model, bucket, examples, deadline, caller, support=support, steps=1, width=2)


def predict_job(model, account, deadline):
    return PredictJob(model, "bucket", 1, deadline, Caller(account), state=None, query=np.zeros((1, 1), np.float32))


async def ask(scheduler, job, seconds, load):
    started = time.monotonic()
    try:
        await scheduler.run(job)
    except OverloadedError as error:
        load.refused.append(error.retry_after)
    except DeadlinePassedError:
        load.dropped += 1
    else:
        took = time.monotonic() - started
        load.late += took > seconds
        if took <= seconds:
            load.answered.append(took)


async def send(scheduler, make, rate, until, seconds, load, seed=0):
    """Send requests with Poisson arrivals, a number of them a second, each to be answered within `seconds`."""
    chance, asked = random.Random(seed), []
    while time.monotonic() < until:
        await asyncio.sleep(chance.expovariate(rate))
        counted = load if time.monotonic() > WARM_UP else Load()
        asked.append(asyncio.create_task(ask(scheduler, make(Deadline(seconds)), seconds, counted)))
    await asyncio.gather(*asked)


def make_scheduler(machine, metrics, places=512, seconds=None):
    def batch_seconds(batch):
        return machine.seconds(len(batch.tasks if isinstance(batch, AdaptBatch) else batch.queries))

    return Scheduler(
        FakeLanes(machine.side_by_side + machine.ahead, machine.side_by_side, seconds or batch_seconds),
        machine.side_by_side,
        BatchLimits(machine.largest, 10**9),
        QueueLimits(places, 10**9, seconds=10.0),
        {Operation.ADAPT: 1.0, Operation.PREDICT: 1.0},
        metrics,
    )


@pytest.mark.parametrize("machine", [CPU, GPU], ids=["cpu", "gpu"])
@pytest.mark.parametrize("seconds", [1.0, 0.4])
def test_three_times_as_much_as_can_be_computed_is_answered_at_nine_tenths_of_capacity(
    monkeypatch, metrics, fake_model, value, machine, seconds
):
    load, until = Load(), WARM_UP + 3.0

    async def main():
        scheduler, model = make_scheduler(machine, metrics), fake_model()
        rate = 3 * machine.capacity
        await send(scheduler, lambda deadline: adapt_job(model, "", deadline), rate, until, seconds, load)
        scheduler.stop()

    run(monkeypatch, main)
    assert len(load.answered) / 3 >= 0.9 * machine.capacity
    assert load.latency(0.99) <= seconds
    assert load.late + load.dropped <= 0.01 * len(load.answered)
    counted = [value("innerloop_requests_refused_total", model="fake", reason=reason) for reason in ("wait", "queue")]
    assert sum(filter(None, counted)) >= len(load.refused) > 0
    assert max(load.refused) <= seconds, "they may come back before they would have been answered"


def test_requests_of_many_kinds_are_answered_at_nine_tenths_of_capacity(monkeypatch, metrics, fake_model):
    """Two models, both operations, small and large requests; a lane computes a second of work in a second."""
    load, until = [Load() for _ in range(5)], WARM_UP + 10.0

    def seconds(batch):
        if not isinstance(batch, AdaptBatch):
            return 0.01 * len(batch.queries)
        return sum(0.004 * task.size for task in batch.tasks)

    async def main():
        first, second = fake_model("first"), fake_model("second")
        scheduler = make_scheduler(CPU, metrics, seconds=seconds)
        kinds = [
            lambda deadline: adapt_job(first, "", deadline, 5),
            lambda deadline: adapt_job(first, "", deadline, 25),
            lambda deadline: adapt_job(second, "", deadline, 5),
            lambda deadline: predict_job(first, "", deadline),
            lambda deadline: predict_job(second, "", deadline),
        ]
        costs = [0.02, 0.1, 0.02, 0.01, 0.01]
        # Six seconds of work a second, for two lanes.
        sending = [
            send(scheduler, make, 6 / 5 / cost, until, 1.0, one, seed)
            for seed, (make, cost, one) in enumerate(zip(kinds, costs, load, strict=True))
        ]
        await asyncio.gather(*sending)
        scheduler.stop()
        return costs

    costs = run(monkeypatch, main)
    work = sum(cost * len(one.answered) for cost, one in zip(costs, load, strict=True))
    assert work >= 0.9 * CPU.side_by_side * 10
    assert sum(one.late + one.dropped for one in load) <= 0.05 * sum(len(one.answered) for one in load)


def test_a_quiet_account_hardly_notices_one_that_sends_ten_times_as_much_as_can_be_computed(
    monkeypatch, metrics, fake_model
):
    until = WARM_UP + 10.0

    def latencies(flood):
        quiet, greedy = Load(), Load()

        async def main():
            scheduler, model = make_scheduler(CPU, metrics), fake_model()
            rate = 0.1 * CPU.capacity
            sending = [send(scheduler, lambda deadline: adapt_job(model, "quiet", deadline), rate, until, 1.0, quiet)]
            if flood:
                make = lambda deadline: adapt_job(model, "greedy", deadline)  # noqa: E731
                sending.append(send(scheduler, make, flood * CPU.capacity, until, 1.0, greedy, seed=1))
            await asyncio.gather(*sending)
            scheduler.stop()

        run(monkeypatch, main)
        assert quiet.late + quiet.dropped + len(quiet.refused) == 0
        return quiet.latency(0.99), len(greedy.answered) / 10

    alone, _ = latencies(flood=0)
    beside, answered = latencies(flood=10)
    # Alone, a request takes 20 ms. Now it waits for a batch of 20 ms, and if two come at once, the second for another.
    assert beside <= 3 * alone
    assert answered >= 0.75 * CPU.capacity


def test_two_accounts_that_both_send_too_much_are_answered_alike(monkeypatch, metrics, fake_model):
    """However much more one of them sends."""
    loads, until = [Load(), Load()], WARM_UP + 4.0

    async def main():
        scheduler, model = make_scheduler(CPU, metrics, places=64), fake_model()
        sending = [
            send(
                scheduler, lambda deadline, n=n: adapt_job(model, n, deadline), rate * CPU.capacity, until, 1.0, load, n
            )
            for n, (rate, load) in enumerate(zip((1.0, 6.0), loads, strict=True))
        ]
        await asyncio.gather(*sending)
        scheduler.stop()

    run(monkeypatch, main)
    modest, greedy = (len(load.answered) for load in loads)
    assert modest == pytest.approx(greedy, rel=0.1)


@pytest.mark.parametrize("known", [True, False], ids=["known", "of a new size"])
def test_large_requests_leave_a_lane_to_the_others(monkeypatch, metrics, fake_model, known):
    """They take 8 s each, and as many come as can be computed; the others take 40 ms."""
    small, large = Load(), Load()

    def seconds(batch):
        return sum(0.008 * task.size for task in batch.tasks)

    async def main():
        scheduler, model = make_scheduler(CPU, metrics, seconds=seconds), fake_model()
        for size in (5, 5, 5, *[1000] * (3 * known)):
            await scheduler.run(adapt_job(model, "", Deadline(), size))
        until = time.monotonic() + 40.0
        await asyncio.gather(
            send(scheduler, lambda deadline: adapt_job(model, "", deadline), 5.0, until, 1.0, small),
            send(scheduler, lambda deadline: adapt_job(model, "", deadline, 1000), 0.25, until, 60.0, large, seed=1),
        )
        scheduler.stop()

    run(monkeypatch, main)
    assert small.latency(0.99) <= 0.5
    assert small.late + small.dropped + len(small.refused) <= 0.01 * len(small.answered)
    assert large.answered


def test_nobody_is_refused_on_a_guess(monkeypatch, metrics, fake_model):
    """Requests take 20 s, as nobody can know: the first ones are computed, however short their deadlines are."""

    async def main():
        scheduler, model, load = make_scheduler(CPU, metrics, seconds=lambda _: 20.0), fake_model(), Load()
        await asyncio.gather(*(ask(scheduler, adapt_job(model, "", Deadline(1.0)), 1.0, load) for _ in range(100)))
        scheduler.stop()
        return load

    load = run(monkeypatch, main)
    assert not load.refused
    assert load.late > 0


def test_a_request_that_need_not_wait_is_computed_whatever_was_measured(monkeypatch, metrics, fake_model):
    """As after a device was slow for a while: otherwise nobody would find out that it is no longer."""
    took = [5.0] * 10

    async def main():
        scheduler, model = make_scheduler(CPU, metrics, seconds=lambda _: took.pop() if took else 0.02), fake_model()
        for _ in range(10):
            await scheduler.run(adapt_job(model, "", Deadline()))
        load = Load()
        await ask(scheduler, adapt_job(model, "", Deadline(1.0)), 1.0, load)
        scheduler.stop()
        return load

    assert len(run(monkeypatch, main).answered) == 1


def test_requests_without_a_deadline_are_refused_when_they_would_wait_for_too_long(monkeypatch, metrics, fake_model):
    async def main():
        scheduler, model, load = make_scheduler(CPU, metrics, seconds=lambda _: 1.0), fake_model(), Load()
        for _ in range(3):
            await scheduler.run(adapt_job(model, "", Deadline()))
        asked = []
        for _ in range(512):
            asked.append(asyncio.create_task(ask(scheduler, adapt_job(model, "", Deadline()), 60.0, load)))
            await asyncio.sleep(0)
        await asyncio.gather(*asked)
        scheduler.stop()
        return load

    load = run(monkeypatch, main)
    assert load.refused
    assert max(load.answered) <= 12.0, "a wait of 10 s, and batches of a second"


def test_in_a_full_queue_the_newest_request_of_whoever_has_most_gives_way(monkeypatch, metrics, fake_model):
    async def main():
        scheduler, model = make_scheduler(CPU, metrics, places=4, seconds=lambda _: 1.0), fake_model()
        order, loads = [], {}

        async def join(name):
            account = name[0]
            load = loads[name] = Load()
            await ask(scheduler, adapt_job(model, account, Deadline()), 60.0, load)
            order.append(name)

        tasks = []
        for name in ("x1", "x2", "a1", "a2", "a3", "a4", "b1", "b2", "b3"):
            tasks.append(asyncio.create_task(join(name)))
            await asyncio.sleep(0.001)
        await asyncio.gather(*tasks)
        scheduler.stop()
        return {name: "refused" if load.refused else "answered" for name, load in loads.items()}

    became = run(monkeypatch, main)
    assert [name for name, what in became.items() if what == "refused"] == ["a3", "a4", "b3"]


def send_from(scheduler, model, account, priority, rate, until, seconds, load, seed=0):
    def make(deadline):
        return adapt_job(model, account, deadline, priority=priority)

    return send(scheduler, make, rate, until, seconds, load, seed)


def test_what_is_urgent_goes_before_all_else_of_its_account(monkeypatch, metrics, fake_model):
    """An account sends a little more than can be computed, a tenth of it urgent, the rest in no hurry at all."""
    urgent, rest, until = Load(), Load(), WARM_UP + 10.0

    async def main():
        scheduler, model = make_scheduler(CPU, metrics), fake_model()
        await asyncio.gather(
            send_from(scheduler, model, "me", Priority.INTERACTIVE, 0.1 * CPU.capacity, until, 1.0, urgent),
            send_from(scheduler, model, "me", Priority.BATCH, 1.1 * CPU.capacity, until, 60.0, rest, seed=1),
        )
        scheduler.stop()

    run(monkeypatch, main)
    assert not urgent.refused
    assert urgent.latency(0.99) <= 2.5 * CPU.seconds(CPU.largest), "a batch that runs, and its own"
    assert rest.latency(0.5) >= 1.0


def test_what_is_in_no_hurry_does_not_wait_for_ever(monkeypatch, metrics, fake_model):
    """An account sends more that is urgent than can be computed; one request that is not waits among it."""
    urgent, rest = Load(), Load()

    async def main():
        scheduler, model = make_scheduler(CPU, metrics, places=10_000), fake_model()
        until = WARM_UP + 30.0
        sending = asyncio.create_task(
            send_from(scheduler, model, "me", Priority.INTERACTIVE, 1.2 * CPU.capacity, until, 60.0, urgent)
        )
        await asyncio.sleep(WARM_UP)
        await ask(scheduler, adapt_job(model, "me", Deadline(), priority=Priority.BATCH), 60.0, rest)
        await sending
        scheduler.stop()

    run(monkeypatch, main)
    # At 1.2 times the capacity, what comes within ten seconds takes twelve.
    assert HEAD_START <= rest.latency(1.0) <= 1.2 * 2 * HEAD_START + 2.0


@pytest.mark.parametrize("priority", Priority)
def test_no_account_gets_more_by_calling_everything_urgent(monkeypatch, metrics, fake_model, priority):
    loads, until = [Load(), Load()], WARM_UP + 4.0

    async def main():
        scheduler, model = make_scheduler(CPU, metrics, places=64), fake_model()
        rate = 2 * CPU.capacity
        await asyncio.gather(
            send_from(scheduler, model, "modest", Priority.NORMAL, rate, until, 1.0, loads[0]),
            send_from(scheduler, model, "other", priority, rate, until, 1.0, loads[1], seed=1),
        )
        scheduler.stop()

    run(monkeypatch, main)
    modest, other = (len(load.answered) for load in loads)
    assert modest == pytest.approx(other, rel=0.1)


def test_in_a_full_queue_what_is_urgent_takes_the_place_of_what_is_not(monkeypatch, metrics, fake_model):
    async def main():
        scheduler, model = make_scheduler(CPU, metrics, places=3, seconds=lambda _: 1.0), fake_model()
        order, loads = [], {}

        async def join(name, priority):
            load = loads[name] = Load()
            await ask(scheduler, adapt_job(model, "me", Deadline(), priority=priority), 60.0, load)
            order.append(name)

        tasks = []
        runs = [("x1", Priority.NORMAL), ("x2", Priority.NORMAL)]
        waits = [("b1", Priority.BATCH), ("n1", Priority.NORMAL), ("b2", Priority.BATCH), ("i1", Priority.INTERACTIVE)]
        for name, priority in [*runs, *waits, ("b3", Priority.BATCH), ("n2", Priority.NORMAL), ("n3", Priority.NORMAL)]:
            tasks.append(asyncio.create_task(join(name, priority)))
            await asyncio.sleep(0.001)
        await asyncio.gather(*tasks)
        scheduler.stop()
        return {name for name, load in loads.items() if load.refused}

    assert run(monkeypatch, main) == {"b1", "b2", "b3", "n3"}
