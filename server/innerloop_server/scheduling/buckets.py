"""Which requests may share a batch.

Sizes fall into power-of-two ranges, so that padding a batch to its largest member never more than doubles the work of
the others. A batch is padded to its largest member, not to the top of its range: a request alone is never padded.
"""

from collections.abc import Hashable

from innerloop_server.engine.interface import Array, ModelDescription, SupportSet, TaskState


def size_range(size: int) -> int:
    """Index of the power-of-two range that `size` falls into: 1, 2, 3-4, 5-8, 9-16, ..."""
    return (size - 1).bit_length()


def head_width(model: ModelDescription, ways: int) -> int:
    """Classes to make room for: those of a fixed head, else a power of two, so that states have few shapes."""
    if ways == 0:
        return 0
    if model.ways_can_change != "any":
        return model.head_ways
    return min(1 << size_range(ways), model.max_ways)


def adapt_bucket(support: SupportSet, steps: int, width: int) -> Hashable:
    """Bucket of an adapt request of one model."""
    return steps, width, size_range(support.size), support.x.dtype


def predict_bucket(state: TaskState, query: Array) -> Hashable:
    """Bucket of a predict request of one model."""
    return state.signature, size_range(len(query)), query.dtype
