"""How large the next batch is, when it is taken and who is first: nine rules, each with what chose its constant.

`BatchPolicy` puts them together. A lane that is free takes a batch by `at_once`; a lane beyond those that run side by
side, which makes a batch ready while others run, takes one by `ahead`. Both look at the load of one bucket at a time.
"""

import math
from dataclasses import dataclass

from innerloop_server.domain.callers import Priority

LONGEST_BATCH = 0.1
"""Most seconds of a batch. In a longer one, another request saves next to nothing and makes later requests wait.

At 50 ms, W1 lost a fifth of its throughput at 32 clients. The rule holds only where batches run side by side: a GPU
takes 256 tasks in little more time than one.
"""

SHORT_BATCH = 0.01
"""Batches of at most this many seconds are short: half of the lanes are enough for them.

Four lanes that shared light requests at once made small batches. These cost more in all, and took time from the threads
that answer: 32 clients of anil got 870 to 1,040 adaptations per second, and 1,360 to 1,510 with half of the lanes.
"""

COMPANY_BATCH = 0.025
"""Most seconds of a batch that requests join of whom many wait, while others send requests, too.

On a simulated clock, of requests of 20 ms, one account sends a tenth of what two lanes compute, and another ten times
what they compute: the p99 of the first is 51 ms, 182 ms without this rule, and 20 ms alone. It costs a tenth of the
throughput. It holds only where batches run side by side, as `LONGEST_BATCH` does.
"""

COMPANY_SECONDS = 10.0
"""Seconds after a request for which its sender counts as company of others, and for which a lane is kept for others."""

FEWEST_QUERIES, USUAL_QUERIES, MOST_QUERIES = 64, 256, 2048
"""Queries of one request that make a job: at least, where no times are known, and at most.

Fewer would cost more in going to and fro than others gain by them, and more are computed in several parts anyway
(`query_chunks.EXAMPLES_AT_ONCE`).
"""

LEFT_OUT_NUMBERS = 2**24
"""Most numbers of features that a job reads in inner steps of tasks without a part of their examples.

On one core of a CPU, anil reads so many in a tenth of a second, which is `LONGEST_BATCH`: 100 examples of 64 features,
left out one by one through 5 steps, take 19 ms.
"""

LONG_BATCH = 0.5
"""Seconds from which on a batch is long: others who come meanwhile would notice.

It is five times as long as the longest batch that is made of several requests, so that only large requests are long.
"""

HEAD_START = 5.0
"""Seconds by which each level of priority puts a request ahead of its account's others.

The lowest priority waits for ten seconds of what is most urgent then, a third of the SDK's usual timeout of 30 s.
"""

AHEAD = 1
"""Number of batches prepared behind those that run. A second one would only wait, and could have grown meanwhile."""


@dataclass(frozen=True)
class BatchLimits:
    """How much may be computed at once.

    Attributes:
        tasks: most requests of one batch.
        size_bytes: most input bytes of one batch; a request larger than that runs alone.
    """

    tasks: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class BucketLoad:
    """The load of one bucket when its turn comes.

    Attributes:
        waiting: requests that wait.
        running: requests that were taken and have not ended.
        seconds_each: that a request takes when nothing is in its way; None if none was computed lately.
    """

    waiting: int
    running: int
    seconds_each: float | None


@dataclass(frozen=True)
class BatchPolicy:
    """The rules, for one device.

    Attributes:
        limits: of one batch.
        lanes: batches that run side by side without taking time from each other.
    """

    limits: BatchLimits
    lanes: int

    def at_once(self, load: BucketLoad, outstanding: int, short: int, long: int) -> int:
        """How many requests of a bucket a free lane takes; zero leaves them waiting.

        Args:
            load: of the bucket.
            outstanding: requests that wait or run, of all buckets.
            short: batches that run and are known to be short.
            long: batches that run and are expected to be long, if there have been other ones lately.
        """
        if self.lanes > 1 and long_batch_waits(load.seconds_each, long, self.lanes):
            return 0
        jobs = min(share_at_once(outstanding, self.lanes), self.most(load.seconds_each))
        return 0 if self.lanes > 1 and short_batch_grows(load, jobs, short, self.lanes) else jobs

    def ahead(self, load: BucketLoad) -> int:
        """How many requests of a bucket are made ready while as many batches run as can; zero leaves them waiting."""
        return share_ahead(load, self.most(load.seconds_each), self.lanes + AHEAD)

    def most(self, seconds_each: float | None) -> int:
        """How many requests of a bucket are computed together when enough wait."""
        if self.lanes == 1:
            return self.limits.tasks
        return jobs_within(LONGEST_BATCH, seconds_each, self.limits.tasks)

    def joins(self, waiting: int, batch: int, seconds_each: float | None) -> bool:
        """Whether a request joins a batch while several accounts send requests.

        Args:
            waiting: requests of its account that wait in its bucket.
            batch: requests of the batch so far.
            seconds_each: that a request takes when nothing is in its way; None if that isn't known.
        """
        few = jobs_within(COMPANY_BATCH, seconds_each, self.limits.tasks)
        return self.lanes == 1 or joins_in_company(waiting, batch, few)


def share_at_once(outstanding: int, lanes: int) -> int:
    """Rule 1, share at once: a free lane takes what waits, however little, but only its share of what is outstanding.

    Nobody waits for a batch to fill up, and no lane goes without work because another one took everything. 13 requests
    that come together while four lanes are free become batches of 4, 3, 3 and 3: the first lane takes 4 of 13, and the
    second one sees 13 outstanding still, of which 9 wait.

    >>> share_at_once(outstanding=13, lanes=4)
    4
    >>> share_at_once(outstanding=1, lanes=4)
    1
    """
    return max(math.ceil(outstanding / lanes), 1)


def share_ahead(load: BucketLoad, most: int, batches: int) -> int:
    """Rule 2, prepare ahead: a batch is made ready behind a running one when it is as large as an even share.

    The device finds it ready when it ends, and requests that come later still find a batch to join. Nine requests run
    and one lane more makes a batch ready: 4 that wait keep growing, since they are fewer than the even share of 9 and
    4 (7); 13 that wait are 22 with those that run, of which the next batch takes half, 11.

    >>> share_ahead(BucketLoad(waiting=4, running=9, seconds_each=None), most=100, batches=2)
    0
    >>> share_ahead(BucketLoad(waiting=13, running=9, seconds_each=None), most=100, batches=2)
    11

    Of a bucket of which nothing runs, all is taken that may be.

    >>> share_ahead(BucketLoad(waiting=4, running=0, seconds_each=None), most=100, batches=2)
    100
    """
    if not load.running:
        return most
    share = min(math.ceil((load.waiting + load.running) / batches), most)
    return share if load.waiting >= min(load.running, share) else 0


def short_batch_grows(load: BucketLoad, jobs: int, short: int, lanes: int) -> bool:
    """Rule 3, let short batches grow: a batch known to be short waits while half of the lanes run short ones.

    Four lanes, of which two run short batches: 3 requests of 2 ms each (6 ms, less than `SHORT_BATCH`) wait, and
    whatever comes meanwhile joins them; 3 requests of 16 ms each are taken.

    >>> short_batch_grows(BucketLoad(waiting=3, running=0, seconds_each=0.002), jobs=8, short=2, lanes=4)
    True
    >>> short_batch_grows(BucketLoad(waiting=3, running=0, seconds_each=0.016), jobs=8, short=2, lanes=4)
    False
    """
    return short >= lanes // 2 and is_short(load.seconds_each, min(load.waiting, jobs))


def jobs_within(seconds: float, seconds_each: float | None, most: int) -> int:
    """Rule 4, longest batch: as many requests as are computed in so many seconds, at least one and at most so many.

    A request of 16 ms leaves room for 6 in 100 ms. Where nothing is known yet, the time is no limit.

    >>> jobs_within(0.1, 0.016, most=8), jobs_within(0.1, 2.0, most=8), jobs_within(0.1, None, most=8)
    (6, 1, 8)
    """
    return max(int(min(seconds / seconds_each, most)), 1) if seconds_each else most


def long_batch_waits(seconds_each: float | None, long: int, lanes: int) -> bool:
    """Rule 5, a lane for the others: long batches leave one lane to those that are not.

    Of four lanes, three compute adaptations of 80 s each. A fourth one waits until one of them ends; a request of 20 ms
    is taken.

    >>> long_batch_waits(80.0, long=3, lanes=4), long_batch_waits(0.02, long=3, lanes=4)
    (True, False)
    """
    return long >= lanes - 1 and seconds_each is not None and seconds_each > LONG_BATCH


def joins_in_company(waiting: int, batch: int, few: int) -> bool:
    """Rule 6, short batches in company: of whoever lets many wait, few join a batch while others send requests, too.

    Whoever sends little then waits for a short batch to end, and shares its own with few. Where few are 2, the third
    request of a batch is not one of an account that has 50 waiting. One of an account that has no more than 2 is: so
    batches of many accounts are as large as those of one.

    >>> joins_in_company(waiting=50, batch=2, few=2), joins_in_company(waiting=2, batch=2, few=2)
    (False, True)
    """
    return waiting <= few or batch < few


def queries_at_once(seconds_per_query: float | None) -> int:
    """Rule 7, turns between queries: a request's queries are computed in parts of at most `LONGEST_BATCH`.

    Others have their turns between two parts, and what nobody waits for any more ends with one. Of queries that take
    0.3 ms each, 256 are computed at once, so that 10,000 make 40 parts. Parts are powers of two, to be of one bucket.

    >>> queries_at_once(0.0003), queries_at_once(0.01), queries_at_once(1e-6), queries_at_once(None)
    (256, 64, 2048, 256)
    """
    if not seconds_per_query:
        return USUAL_QUERIES
    most = min(max(int(LONGEST_BATCH / seconds_per_query), FEWEST_QUERIES), MOST_QUERIES)
    return 1 << (most.bit_length() - 1)


def place_in_line(submitted: float, priority: Priority) -> float:
    """Rule 8, a head start: each level of priority puts a request `HEAD_START` ahead among those of its account.

    One of low priority that came at 100 s goes behind interactive ones that come until 110 s, and before all that come
    later: it waits for ten seconds of them at most, and never starves. Other accounts notice nothing, since an account
    has its share of the device's time whatever it calls urgent; otherwise all would.

    >>> batch = place_in_line(100.0, Priority.BATCH)
    >>> place_in_line(109.0, Priority.INTERACTIVE) < batch, place_in_line(111.0, Priority.INTERACTIVE) < batch
    (True, False)
    """
    return submitted - HEAD_START * (priority - Priority.NORMAL)


def parts_at_once(numbers: int) -> int:
    """Rule 9, turns between parts: a job leaves out as many parts of a support set as read `LEFT_OUT_NUMBERS` together.

    Features are computed once in each job, so the fewer the better; others have their turns between two. 100 examples
    of 64 features are left out one by one in a job, through 5 inner steps as well, and with 1,600 features in 5 jobs.

    Args:
        numbers: that a part reads: examples, times their features, times inner steps.

    >>> parts_at_once(100 * 64 * 5), parts_at_once(100 * 1600 * 5), parts_at_once(10**9)
    (524, 20, 1)
    """
    return max(LEFT_OUT_NUMBERS // numbers, 1)


def is_short(seconds_each: float | None, jobs: int) -> bool:
    """Whether a batch of `jobs` jobs is known to be short.

    >>> is_short(0.002, 4), is_short(0.002, 8), is_short(None, 1)
    (True, False, False)
    """
    return seconds_each is not None and jobs * seconds_each < SHORT_BATCH
