"""What a caller wants besides the answers themselves."""

from numbers import Real
from typing import NamedTuple

from innerloop.errors import InvalidArgumentError


class Wanted(NamedTuple):
    """What answers shall carry.

    Attributes:
        return_logits: whether the raw logits too.
        coverage: share of queries for which sets of labels or intervals shall hold the truth; None for none of them.
    """

    return_logits: bool
    coverage: float | None


def read_wanted(return_logits: bool, coverage: float | None) -> Wanted:
    """What the arguments of a call ask for.

    Raises:
        InvalidArgumentError: the coverage is no share.
    """
    if coverage is not None and not (isinstance(coverage, Real) and 0 < coverage < 1):
        raise InvalidArgumentError(f"coverage is a share of queries such as 0.95, not {coverage!r}")
    return Wanted(return_logits, None if coverage is None else float(coverage))
