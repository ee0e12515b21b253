"""Which requests may share a batch.

Sizes fall into power-of-two ranges, so that padding a batch to its largest member never more than doubles the work of
the others. A batch is padded to its largest member, not to the top of its range: a request alone is never padded.
"""

from collections.abc import Hashable

from innerloop_server.domain.tasks import Array, Parts, SupportSet
from innerloop_server.engine.interface import TaskState


def size_range(size: int) -> int:
    """Index of the power-of-two range that `size` falls into: 1, 2, 3-4, 5-8, 9-16, ..."""
    return (size - 1).bit_length()


def adapt_bucket(support: SupportSet, steps: int, width: int, *, asks: bool) -> Hashable:
    """Bucket of an adapt request of one model, which may bring queries."""
    return steps, width, size_range(support.size), support.x.dtype, asks


def extend_bucket(state: TaskState, support: SupportSet, steps: int, width: int) -> Hashable:
    """Bucket of a request of one model to learn more examples into a task state."""
    return state.signature, steps, width, size_range(support.size), support.x.dtype


def leave_out_bucket(support: SupportSet, parts: Parts, steps: int, width: int) -> Hashable:
    """Bucket of a request of one model to answer examples by tasks without them."""
    sizes = size_range(support.size), size_range(len(parts)), max(map(len, parts))
    return steps, width, sizes, support.x.dtype


def query_bucket(query: Array) -> Hashable:
    """Bucket of queries whose task states can be read together."""
    return size_range(len(query)), query.dtype


def predict_bucket(state: TaskState, query: Array) -> Hashable:
    """Bucket of a predict request of one model."""
    return state.signature, query_bucket(query)
