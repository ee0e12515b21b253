"""Task states as rows of words: whatever a learner leaves behind comes back as it was."""

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop_server.engine.pytorch.state_layout import PAGE_WORDS, StateLayout, StateLayouts

DTYPES = (
    torch.float32,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.bool,
    torch.bfloat16,
    torch.float16,
    torch.uint8,
)
DENSE, TRANSPOSED, STRIDED, EXPANDED = "dense", "transposed", "strided", "expanded"


def tensor(tasks, shape, dtype, memory, seed):
    """Any values [tasks, *shape], lying in memory as a learner's operations may leave them."""
    random, whole = torch.Generator().manual_seed(seed), (tasks, *shape)
    if memory == EXPANDED:
        return tensor(1, (1,) * len(shape), dtype, DENSE, seed).expand(whole)
    if memory == TRANSPOSED:
        return tensor(whole[-1], whole[-2::-1], dtype, DENSE, seed).permute(*range(len(whole))[::-1])
    if memory == STRIDED:
        return tensor(tasks, (*shape, 2), dtype, DENSE, seed)[..., 1]
    if dtype.is_floating_point:
        return torch.randn(whole, generator=random, dtype=torch.float64).mul(1e3).to(dtype)
    low, high = (0, 2) if dtype is torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
    return torch.randint(low, high, whole, generator=random, dtype=torch.int64).to(dtype)


shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
fields = st.tuples(
    shapes,
    st.sampled_from(DTYPES),
    st.sampled_from((DENSE, TRANSPOSED, STRIDED, EXPANDED)),
    st.integers(0, 2**31),
)


@settings(deadline=None)
@given(tasks=st.integers(1, 4), made=st.lists(fields, min_size=1, max_size=6))
def test_a_state_of_any_tensors_comes_back_as_it_was_and_zeros_fill_the_rest(tasks, made):
    state = {str(index): tensor(tasks, *field) for index, field in enumerate(made)}
    layout = StateLayouts().of(state)
    rows = layout.pack(state)
    assert rows.dtype is torch.int32
    assert rows.shape == (tasks, layout.pages * PAGE_WORDS)
    back = layout.unpack(rows)
    assert list(back) == list(state)
    for name, value in state.items():
        assert back[name].dtype is value.dtype
        assert back[name].shape == value.shape
        assert torch.equal(back[name], value)
    covered = torch.zeros(layout.pages * PAGE_WORDS, dtype=torch.int64)
    for field in layout.fields:
        covered[field.start : field.start + field.words] += 1
    assert covered.max() <= 1, "no two tensors share words"
    assert not rows[:, covered == 0].any()


def test_numbers_that_equal_nothing_come_back_too():
    odd = torch.tensor([[float("nan"), float("inf"), -float("inf"), -0.0]])
    state = {"wide": odd, "double": odd.double(), "narrow": odd.bfloat16()}
    layout = StateLayouts().of(state)
    for name, value in layout.unpack(layout.pack(state)).items():
        assert torch.equal(value.isnan(), state[name].isnan())
        assert torch.equal(value.nan_to_num(), state[name].nan_to_num())
        assert value[0, 3].signbit()


@pytest.mark.parametrize(
    ("words", "pages"), [(0, 1), (1, 1), (PAGE_WORDS, 1), (PAGE_WORDS + 1, 2), (5 * PAGE_WORDS, 5)]
)
def test_a_state_takes_as_few_whole_pages_as_hold_it_but_one_at_least(words, pages):
    state = {"weights": torch.ones(2, words)}
    layout = StateLayouts().of(state)
    assert layout.pages == pages
    assert layout.unpack(layout.pack(state))["weights"].shape == (2, words)


def test_states_of_equal_shapes_share_a_layout_whatever_their_number_and_others_do_not():
    layouts = StateLayouts()
    one = layouts.of({"a": torch.ones(1, 2, 3), "b": torch.ones(1)})
    assert layouts.of({"a": torch.zeros(5, 2, 3), "b": torch.zeros(5)}) is one
    others = [
        layouts.of({"a": torch.ones(1, 3, 2), "b": torch.ones(1)}),
        layouts.of({"a": torch.ones(1, 2, 3), "b": torch.ones(1, 1)}),
        layouts.of({"a": torch.ones(1, 2, 3), "b": torch.ones(1, dtype=torch.int32)}),
        layouts.of({"a": torch.ones(1, 2, 3), "c": torch.ones(1)}),
        layouts.of({"a": torch.ones(1, 2, 3)}),
    ]
    assert len({one, *others}) == 6


def test_threads_that_meet_new_shapes_at_once_get_one_layout(monkeypatch):
    both = threading.Barrier(2, timeout=5)
    build = StateLayout.__init__

    def together(*arguments):
        both.wait()
        build(*arguments)

    monkeypatch.setattr(StateLayout, "__init__", together)
    layouts, found = StateLayouts(), []
    threads = [threading.Thread(target=lambda: found.append(layouts.of({"a": torch.ones(1, 2)}))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert found[0] is found[1]
    assert layouts.of({"a": torch.ones(2, 2)}) is found[0]
