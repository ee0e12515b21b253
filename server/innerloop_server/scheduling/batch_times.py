"""How long batches take, as measured: the figures that the rules of batching and of admission go by."""

from collections import OrderedDict, deque
from collections.abc import Hashable

from innerloop_server.scheduling.buckets import size_range

LATEST_BATCHES, MOST_BUCKETS = 32, 256
"""Number of latest batches of each bucket whose times are remembered, and most buckets of one model and operation."""

LATEST_OF_SIZE = 8
"""Number of latest batches of each size whose median counts. One that was held up by something else moves it little."""

KNOWN_AFTER = 3
"""Number of batches of a bucket after which its times are believed; the first ones may have set something up."""


class _BucketTimes:
    """Times of one bucket's latest batches.

    Attributes:
        batches: that were computed.
        seconds_each: the shortest time of a request.
        typical: median seconds of a batch, by the range that its size falls into.
    """

    __slots__ = ("_each", "_of_size", "batches", "seconds_each", "typical")

    def __init__(self) -> None:
        self._each: deque[float] = deque(maxlen=LATEST_BATCHES)
        self._of_size: dict[int, deque[float]] = {}
        self.batches = 0
        self.seconds_each = 0.0
        self.typical: dict[int, float] = {}

    def note(self, seconds: float, jobs: int) -> None:
        size = size_range(jobs)
        self.batches += 1
        self._each.append(seconds / jobs)
        self.seconds_each = min(self._each)
        of_size = self._of_size.setdefault(size, deque(maxlen=LATEST_OF_SIZE))
        of_size.append(seconds)
        self.typical[size] = sorted(of_size)[(len(of_size) - 1) // 2]


class BatchTimes:
    """Times of the batches of one model and operation, by bucket.

    Example:
        >>> times = BatchTimes()
        >>> for _ in range(3):
        ...     times.note("bucket", seconds=0.02, jobs=1, units=5)
        >>> times.batch_seconds("bucket", 1), times.batch_seconds("bucket", 4), times.batch_seconds("other", 1)
        (0.02, 0.02, None)
        >>> times.note("bucket", seconds=0.05, jobs=4, units=20)
        >>> times.batch_seconds("bucket", 4), times.batch_seconds("bucket", 2), times.seconds_per_unit
        (0.05, 0.02, 0.0025)

    Attributes:
        seconds_per_unit: seconds of a unit of work (`Job.units`) in the latest batches, whatever their buckets, at
            least; None where too little is known.
    """

    def __init__(self) -> None:
        self.seconds_per_unit: float | None = None
        self._per_unit: deque[float] = deque(maxlen=LATEST_BATCHES)
        self._buckets: OrderedDict[Hashable, _BucketTimes] = OrderedDict()

    def note(self, bucket: Hashable, seconds: float, jobs: int, units: int) -> None:
        """Record the time of a batch of `jobs` jobs and so many units of work."""
        self._per_unit.append(seconds / units)
        if len(self._per_unit) >= KNOWN_AFTER:
            self.seconds_per_unit = min(self._per_unit)
        times = self._buckets.get(bucket)
        if times is None:
            times = self._buckets[bucket] = _BucketTimes()
        times.note(seconds, jobs)
        self._buckets.move_to_end(bucket)
        if len(self._buckets) > MOST_BUCKETS:
            self._buckets.popitem(last=False)

    def seconds_each(self, bucket: Hashable) -> float | None:
        """Seconds that a request takes when nothing is in its way; None if none has been computed lately.

        It is the shortest time of the latest batches: their mean would grow with what else runs, and what depends on it
        would depend on itself.
        """
        times = self._buckets.get(bucket)
        return None if times is None else times.seconds_each

    def batch_seconds(self, bucket: Hashable, jobs: int) -> float | None:
        """Seconds that a batch of `jobs` jobs usually takes, beside whatever else runs; None where too little is known.

        Of a size that has not been measured it is what is known for certain: it takes no less than a smaller batch, or
        its part of a larger one. So nobody is refused on a guess.
        """
        times = self._buckets.get(bucket)
        if times is None or times.batches < KNOWN_AFTER:
            return None
        size = size_range(jobs)
        if size in times.typical:
            return times.typical[size]
        smaller = [known for known in times.typical if known < size]
        if smaller:
            return times.typical[max(smaller)]
        least = min(times.typical)
        return times.typical[least] * jobs / (1 << least)
