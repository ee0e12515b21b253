"""Arrays of different lengths as one batch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from innerloop_server.engine import padding
from innerloop_server.engine.pytorch.padding import DTYPES, mask, stack

RUBBISH = 77


def rubbish(shape, dtype):
    """Memory as an allocator gives it: of any content."""
    return torch.full(tuple(shape), RUBBISH, dtype=torch.uint8).to(dtype)


def frozen(array):
    array.flags.writeable = False
    return array


def from_bytes(array):
    """As it arrives: read-only, and at any address."""
    read = np.frombuffer(b"x" + array.tobytes(), np.uint8)[1:].view(array.dtype).reshape(array.shape)
    assert array.itemsize == 1 or array.size == 0 or not read.flags.aligned
    assert not read.flags.writeable
    return read


def strided(array):
    return np.repeat(array, 2, axis=0)[::2]


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    rest=st.lists(st.integers(1, 3), max_size=2).map(tuple),
    dtype=st.sampled_from(sorted(DTYPES, key=str)),
    arrives=st.sampled_from((frozen, from_bytes, strided)),
    missing=st.integers(0, 3),
    behind=st.integers(0, 3),
    seed=st.integers(0, 2**31),
)
def test_every_row_is_its_array_with_zeros_behind_and_the_first_stands_in_for_missing_ones(
    lengths, rest, dtype, arrives, missing, behind, seed
):
    random = np.random.default_rng(seed)
    arrays = [arrives(random.integers(1, 200, (length, *rest)).astype(dtype)) for length in lengths]
    tasks, longest = len(arrays) + missing, max(lengths) + behind
    batch = stack(arrays, tasks, longest, rubbish)
    assert batch.dtype is DTYPES[dtype]
    assert batch.shape == (tasks, longest, *rest)
    present = mask(lengths, tasks, longest, rubbish)
    assert present.dtype is torch.bool
    assert present.shape == (tasks, longest)
    for task in range(tasks):
        array = arrays[task] if task < len(arrays) else arrays[0]
        np.testing.assert_array_equal(batch[task, : len(array)], array)
        assert not batch[task, len(array) :].any()
        assert present[task].tolist() == [example < len(array) for example in range(longest)]
    np.testing.assert_array_equal(padding.stack(arrays, tasks, longest), batch)
    np.testing.assert_array_equal(padding.mask(lengths, tasks, longest), present)


def test_inputs_are_copied_so_that_their_memory_may_go():
    array = np.ones((2, 3), np.float32)
    batch = stack([array], 1, 2, rubbish)
    array[:] = 5
    assert batch.eq(1).all()


def test_what_is_written_is_the_memory_that_was_allocated():
    made = []

    def allocate(shape, dtype):
        made.append(rubbish(shape, dtype))
        return made[-1]

    assert stack([np.ones(2, np.int64)], 2, 3, allocate) is made[0]
    assert mask([2], 2, 3, allocate) is made[1]


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.float16])
def test_element_types_that_no_model_reads_are_not_taken_for_others(dtype):
    with pytest.raises(KeyError):
        stack([np.ones(2, dtype)], 1, 2, rubbish)
