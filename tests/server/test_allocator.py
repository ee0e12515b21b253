"""Blocks of a segment."""

from hypothesis import given
from hypothesis import strategies as st

from innerloop_server.ipc.allocator import ALIGNMENT, Allocator

SIZE = 64 * ALIGNMENT + 7
STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, SIZE // 4), st.randoms(use_true_random=False)), max_size=200)


@given(STEPS)
def test_blocks_never_overlap_and_all_memory_comes_back(steps):
    allocator, held = Allocator(SIZE), []
    whole = allocator.free_bytes
    for give_back, size, random in steps:
        if give_back and held:
            allocator.free(held.pop(random.randrange(len(held))))
        else:
            block = allocator.allocate(size)
            if block is not None:
                held.append(block)
                assert block.size >= size
                assert block.offset % ALIGNMENT == 0
                assert block.offset + block.size <= SIZE
        used = [range(block.offset, block.offset + block.size) for block in held]
        assert len(set().union(*used)) == sum(map(len, used)) == whole - allocator.free_bytes
    for block in held:
        allocator.free(block)
    assert allocator.allocate(whole) is not None


def test_a_block_is_refused_when_no_gap_is_large_enough_though_all_gaps_together_were():
    allocator = Allocator(4 * ALIGNMENT)
    blocks = [allocator.allocate(ALIGNMENT) for _ in range(4)]
    allocator.free(blocks[0])
    allocator.free(blocks[2])
    assert allocator.allocate(2 * ALIGNMENT) is None
    allocator.free(blocks[1])
    assert allocator.allocate(2 * ALIGNMENT + 1).offset == 0


def test_low_memory_is_used_again_before_high_memory_is_touched():
    allocator = Allocator(100 * ALIGNMENT)
    first, second = allocator.allocate(1), allocator.allocate(1)
    allocator.free(first)
    assert allocator.allocate(1) == first
    assert second.offset == ALIGNMENT
