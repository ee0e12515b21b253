"""Requests of one model and one operation that wait: by bucket, and within it by account."""

import heapq
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Sequence
from itertools import chain

from innerloop_server.domain.errors import DeadlinePassedError
from innerloop_server.scheduling.batch_times import BatchTimes
from innerloop_server.scheduling.fair_turns import Accounts
from innerloop_server.scheduling.job import AnyJob
from innerloop_server.scheduling.policy import LONG_BATCH, BatchPolicy, BucketLoad

Rule = Callable[[BucketLoad], int]
"""Says how many requests of a bucket the next batch may have; zero leaves them waiting."""


class _Bucket:
    """Waiting jobs that may share a batch.

    Attributes:
        by_account: in the order of their places.
        waiting: how many.
        units: of their work.
        work: seconds in which a lane computes them all, as far as that is known.
        long: whether each of them takes long.
    """

    __slots__ = ("by_account", "long", "units", "waiting", "work")

    def __init__(self) -> None:
        self.by_account: dict[Hashable, OrderedDict[AnyJob, None]] = {}
        self.waiting = self.units = 0
        self.work = 0.0
        self.long = False

    def first_of(self, account: Hashable) -> AnyJob:
        """The job of an account, of which some wait, that is the first in its line."""
        return next(iter(self.by_account[account]))


class OperationQueue:
    """Waiting jobs of one model and operation. Accounts take turns, and an account's jobs go by their places.

    Args:
        policy: says how large batches are, and who joins them.

    Attributes:
        times: of its batches.
        depth: jobs that wait.
        size_bytes: of their inputs.
        cost: of them all, in seconds of a lane.
    """

    def __init__(self, policy: BatchPolicy) -> None:
        self._policy = policy
        self._buckets: dict[Hashable, _Bucket] = {}
        self._running: Counter[Hashable] = Counter()  # jobs that were taken and have not ended
        self._accounts = Accounts()
        self.times = BatchTimes()
        self.depth = 0
        self.size_bytes = 0
        self.cost = 0.0
        self._work = self._long_work = 0.0  # seconds in which a lane computes all, or those of which each takes long
        self._changed: set[Hashable] = set()  # buckets whose work is to be counted again
        self._last_place: dict[Hashable, float] = {}  # by account, at least that of its last job
        self._jobs_of: Counter[Hashable] = Counter()
        self._bytes_of: Counter[Hashable] = Counter()
        self._cost_of: defaultdict[Hashable, float] = defaultdict(float)

    def expect(self, job: AnyJob) -> float:
        """Seconds that the batch is expected to take in which a job will be that arrives now; zero if unknown.

        Its part of them is noted as the job's cost.
        """
        bucket = self._buckets.get(job.bucket)
        together = min(1 if bucket is None else bucket.waiting + 1, self._most(job.bucket))
        seconds = self.times.batch_seconds(job.bucket, together)
        if seconds is None:
            together, seconds = 1, self._of_units(job.units)
        if seconds:
            job.cost = seconds / together
        return seconds

    def add(self, job: AnyJob) -> None:
        """Let a job wait for its turn."""
        bucket = self._buckets.setdefault(job.bucket, _Bucket())
        bucket.by_account.setdefault(job.account, OrderedDict())[job] = None
        bucket.waiting += 1
        bucket.units += job.units
        self.depth += 1
        self.size_bytes += job.size_bytes
        self.cost += job.cost
        self._jobs_of[job.account] += 1
        self._bytes_of[job.account] += job.size_bytes
        self._cost_of[job.account] += job.cost
        if self._jobs_of[job.account] == 1:
            self._accounts.join(job.account)
        for each in self._behind(job):
            if each.bucket == job.bucket:
                bucket.by_account[job.account].move_to_end(each)
        self._last_place[job.account] = max(job.place, self._last_place.get(job.account, job.place))
        self._changed.add(job.bucket)

    def discard(self, job: AnyJob) -> bool:
        """Forget a job; false when it is not waiting any more."""
        bucket = self._buckets.get(job.bucket)
        if bucket is None or job not in bucket.by_account.get(job.account, ()):
            return False
        self._remove(bucket, job)
        return True

    def next_size(self, rule: Rule) -> tuple[Hashable, int]:
        """The bucket that holds the job whose turn it is, of those that may be taken, and how many may; zero if none.

        Args:
            rule: says how many jobs of a bucket may be taken.
        """
        for key in self._in_turn():
            bucket = self._buckets[key]
            most = rule(BucketLoad(bucket.waiting, self._running[key], self._seconds_each(key, bucket)))
            if most:
                return key, most
        return None, 0

    def take(self, key: Hashable, most: int, size_bytes: int, begins_in: float, *, company: bool) -> list[AnyJob]:
        """A batch in the order of turns; jobs that nobody waits for or that are too late are dropped.

        Args:
            key: of its bucket.
            most: jobs of the batch.
            size_bytes: most bytes of their inputs; a job larger than that is taken alone.
            begins_in: seconds until it is computed.
            company: whether several accounts send requests.
        """
        batch: list[AnyJob] = []
        bucket = self._buckets[key]
        each = self.times.seconds_each(key)
        seconds = begins_in + (self.times.batch_seconds(key, min(most, bucket.waiting)) or 0.0)
        line = [self._next_of(account, bucket) for account in bucket.by_account]
        heapq.heapify(line)
        first_turn = 0.0
        while line:
            turn, _, _, job = heapq.heappop(line)
            if drop_if_useless(job, seconds):
                self._remove(bucket, job)
            elif batch and (len(batch) >= most or size_bytes < job.size_bytes):
                break
            elif company and not self._policy.joins(len(bucket.by_account[job.account]), len(batch), each):
                continue  # nor do its account's others
            else:
                self._remove(bucket, job)
                self._accounts.charge(job.account, job.cost)
                first_turn = turn if not batch else first_turn
                batch.append(job)
                size_bytes -= job.size_bytes
            if job.account in bucket.by_account:
                heapq.heappush(line, self._next_of(job.account, bucket))
        if batch:  # what a client makes up must not be remembered
            self._running[key] += len(batch)
            self._accounts.begin(first_turn)
        return batch

    def ended(self, batch: Sequence[AnyJob], seconds: float) -> None:
        """Record that a batch that was taken is no longer being computed, and charge its accounts the seconds."""
        bucket = batch[0].bucket
        self._running[bucket] -= len(batch)
        if not self._running[bucket]:
            del self._running[bucket]
        for job in batch:
            self._accounts.charge(job.account, seconds / len(batch) - job.cost)

    def work_of(self, *, long: bool) -> float:
        """Seconds of a lane's work that may come before a job that is long, or before one that is not."""
        for key in self._changed:
            self._weigh(key)
        self._changed.clear()
        return self._work if long else self._work - self._long_work

    def ahead_of(self, job: AnyJob, *, long: bool) -> float:
        """Seconds of a lane's work that come before a job that has just arrived, as far as they are known.

        For each second that its account waits for work of its own, the others who wait get one, too.
        """
        waiting = self._cost_of.get(job.account, 0.0) - sum(each.cost for each in self._behind(job))
        own = self._accounts.lead(job.account) + waiting
        return min(self.work_of(long=long), max(own, 0.0) * len(self._jobs_of))

    def waiting_of(self, *, by_bytes: bool) -> Counter[Hashable]:
        """Jobs that wait, or their bytes, by account."""
        return self._bytes_of if by_bytes else self._jobs_of

    def seconds_of(self, batch: Sequence[AnyJob]) -> float:
        """Seconds that a batch is expected to take; zero if nothing is known."""
        seconds = self.times.batch_seconds(batch[0].bucket, len(batch))
        return self._of_units(sum(job.units for job in batch)) if seconds is None else seconds

    def last_of(self, account: Hashable) -> AnyJob:
        """The job of an account, of which some wait, that is the last in its line."""
        last = (
            next(reversed(bucket.by_account[account]))
            for bucket in self._buckets.values()
            if account in bucket.by_account
        )
        return max(last, key=lambda job: job.place)

    def _behind(self, job: AnyJob) -> list[AnyJob]:
        """The waiting jobs of a job's account that come after it, in their order."""
        if job.place >= self._last_place.get(job.account, job.place):
            return []
        own = chain.from_iterable(bucket.by_account.get(job.account, ()) for bucket in self._buckets.values())
        return sorted((each for each in own if each.place > job.place), key=lambda each: each.place)

    def _next_of(self, account: Hashable, bucket: _Bucket) -> tuple[float, float, int, AnyJob]:
        """The next job of an account in a bucket, behind what says whose is next: its turn, and its place."""
        job = bucket.first_of(account)
        return self._accounts.turn(account), job.place, id(job), job

    def _remove(self, bucket: _Bucket, job: AnyJob) -> None:
        jobs = bucket.by_account[job.account]
        del jobs[job]
        if not jobs:
            del bucket.by_account[job.account]
        bucket.waiting -= 1
        bucket.units -= job.units
        self.depth -= 1
        self.size_bytes -= job.size_bytes
        self.cost -= job.cost
        self._jobs_of[job.account] -= 1
        self._bytes_of[job.account] -= job.size_bytes
        self._cost_of[job.account] -= job.cost
        if not self._jobs_of[job.account]:
            for of_account in (self._jobs_of, self._bytes_of, self._cost_of, self._last_place):
                del of_account[job.account]
        if bucket.waiting:
            self._changed.add(job.bucket)
            return
        del self._buckets[job.bucket]
        self._count(bucket, -1)
        if not self.depth:
            self.cost = self._work = self._long_work = 0.0  # without what rounding has left

    def _weigh(self, key: Hashable) -> None:
        """Count the work of a bucket again."""
        bucket = self._buckets.get(key)
        if bucket is None:
            return
        self._count(bucket, -1)
        bucket.long = (self._seconds_each(key, bucket) or 0.0) > LONG_BATCH
        together = min(bucket.waiting, self._most(key))
        seconds = self.times.batch_seconds(key, together)
        bucket.work = self._of_units(bucket.units) if seconds is None else bucket.waiting / together * seconds
        self._count(bucket, 1)

    def _count(self, bucket: _Bucket, times: int) -> None:
        """Add the work of a bucket, or take it away."""
        self._work += times * bucket.work
        self._long_work += times * bucket.work * bucket.long

    def _of_units(self, units: int) -> float:
        """Seconds of so much work, going by requests of other sizes; zero if nothing is known."""
        return units * (self.times.seconds_per_unit or 0.0)

    def _most(self, bucket: Hashable) -> int:
        return self._policy.most(self.times.seconds_each(bucket))

    def _seconds_each(self, key: Hashable, bucket: _Bucket) -> float | None:
        """Seconds that a job of a bucket takes at least, going by others if none of it was computed lately."""
        return self.times.seconds_each(key) or self._of_units(bucket.units) / bucket.waiting or None

    def _in_turn(self) -> list[Hashable]:
        """The buckets in the order of the turns of their first jobs."""
        if len(self._buckets) == 1:
            return list(self._buckets)
        return sorted(self._buckets, key=lambda key: self._first_turn(self._buckets[key]))

    def _first_turn(self, bucket: _Bucket) -> tuple[float, float, int, AnyJob]:
        return min(self._next_of(account, bucket) for account in bucket.by_account)


def drop_if_useless(job: AnyJob, seconds: float) -> bool:
    """Whether a job need not be computed; one that would end after its deadline is told so.

    Args:
        job: whose turn it is.
        seconds: until it is computed, as usual. They count only if it has waited as long: what is computed at once
            shows how long it takes by now.
    """
    if job.abandoned:
        return True
    waited = time.monotonic() - job.submitted
    if job.deadline.within(seconds if waited > seconds else 0.0):
        job.future.set_exception(DeadlinePassedError())
        return True
    return False
