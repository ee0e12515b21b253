"""Distributions of times, small enough to send between processes and to keep in a file."""

from collections.abc import Iterable
from typing import Self

from hdrh.histogram import HdrHistogram

SHORTEST, LONGEST = 1, 3_600_000_000
"""Microseconds: times from one microsecond to an hour are told apart; longer ones count as an hour."""

DIGITS = 3
"""Significant decimal digits of every value."""

PERCENTILES = (50.0, 90.0, 99.0, 99.9)


class Histogram:
    """An HdrHistogram of seconds, kept in whole microseconds with three significant digits. Can be pickled."""

    def __init__(self) -> None:
        self._counts = HdrHistogram(SHORTEST, LONGEST, DIGITS)

    @classmethod
    def decode(cls, text: str) -> Self:
        """Read what `encode` wrote."""
        histogram = cls()
        histogram._counts.decode_and_add(text.encode())
        return histogram

    @classmethod
    def merged(cls, histograms: Iterable["Histogram"]) -> Self:
        """All values of several histograms in a new one."""
        whole = cls()
        for histogram in histograms:
            whole.add(histogram)
        return whole

    def record(self, seconds: float) -> None:
        """Add one value. Negative ones, which two clocks that disagree can give, count as zero."""
        self._counts.record_value(min(max(round(seconds * 1e6), 0), LONGEST))

    def add(self, other: "Histogram") -> None:
        """Add all values of another histogram."""
        self._counts.add(other._counts)

    @property
    def count(self) -> int:
        """Number of values."""
        return int(self._counts.get_total_count())

    @property
    def mean(self) -> float:
        """Mean in seconds; 0 when there are no values."""
        return float(self._counts.get_mean_value()) / 1e6

    @property
    def max(self) -> float:
        """Largest value in seconds; 0 when there are none."""
        return float(self._counts.get_max_value()) / 1e6

    def percentile(self, percent: float) -> float:
        """The value in seconds that `percent` of all values do not exceed; 0 when there are none."""
        return float(self._counts.get_value_at_percentile(percent)) / 1e6

    def encode(self) -> str:
        """The histogram in HdrHistogram's own compressed form (V2, base64), which its other tools read too."""
        return str(self._counts.encode().decode())

    def summary(self) -> dict[str, float]:
        """Count, and mean, percentiles and largest value in milliseconds."""
        percentiles = {f"p{percent:g}": self.percentile(percent) for percent in PERCENTILES}
        figures = {"mean": self.mean, **percentiles, "max": self.max}
        return {"count": self.count, **{f"{name}_ms": round(value * 1e3, 4) for name, value in figures.items()}}

    def __getstate__(self) -> str:
        return self.encode()

    def __setstate__(self, text: str) -> None:
        self._counts = HdrHistogram(SHORTEST, LONGEST, DIGITS)
        self._counts.decode_and_add(text.encode())
