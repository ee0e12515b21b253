"""Memory for task states: every state reads back its own content for as long as someone holds it, and then is gone."""

import itertools
import random
import sys
import threading
import time

import pytest
import torch
from fakes import EarlyCopies
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from structlog.testing import capture_logs

from innerloop_server.engine.interface import MemoryFullError
from innerloop_server.engine.pytorch.state_layout import PAGE_WORDS, StateLayouts
from innerloop_server.engine.pytorch.state_memory import PAGE_BYTES, StateMemory

CPU = torch.device("cpu")
WORDS = (1, PAGE_WORDS, PAGE_WORDS + 44, 3 * PAGE_WORDS - 1)
LAYOUTS = tuple(StateLayouts().of({"weights": torch.empty(1, words)}) for words in WORDS)
MOST_PAGES = 3


def rows_of(layout, numbers):
    """Rows of states that differ in every word; what a state doesn't fill is zero."""
    words = layout.fields[0].words
    values = torch.tensor(numbers)[:, None] + torch.arange(words) / (2 * words)
    return layout.pack({"weights": values.float()})


def pages_of(states):
    return sum(state.size_bytes // PAGE_BYTES for state in states)


def read(memory, states):
    """What each of the states holds."""
    claimed = [place.pages for place in memory.claim(states)]
    try:
        return [memory.read(torch.from_numpy(pages)[None])[0] for pages in claimed]
    finally:
        memory.release(states)


class Mixed(RuleBasedStateMachine):
    """States of all sizes come, are read together, and go, in any order."""

    host_pages = 7
    device_pages = 10

    def __init__(self):
        super().__init__()
        self.memory = StateMemory(CPU, self.device_pages * PAGE_BYTES, self.host_pages * PAGE_BYTES)
        self.numbers = itertools.count(1)
        self.contents = {}  # of every state with a handle
        self.claims = []  # states, and the pages and content of each

    @initialize()
    def fill_with_rubbish(self):
        """Pages that were never used are zero by chance: what is cleared shows on used ones."""
        for pages in (self.memory._device, self.memory._host):
            pages.words.fill_(-1)

    def live(self):
        return {*self.contents, *(state for states, _ in self.claims for state in states)}

    def surely_fits(self, pages, claimed=()):
        """Whether there is room on the device for so many pages more, while these states stay on it."""
        missing = pages - (self.device_pages - self.memory.device_bytes // PAGE_BYTES)
        held = {*claimed, *(state for states, _ in self.claims for state in states)}
        idle = pages_of(state for state in self.live() if state not in held and state.place.on_device)
        host_room = self.host_pages - self.memory.host_bytes // PAGE_BYTES
        return missing <= 0 or (idle >= missing and host_room >= missing + MOST_PAGES - 1)

    @rule(layout=st.sampled_from(LAYOUTS), count=st.integers(1, 4), padding=st.integers(0, 2))
    def put(self, layout, count, padding):
        numbers = [next(self.numbers) for _ in range(count)]
        rows = rows_of(layout, numbers + [numbers[0]] * padding)
        sure = self.surely_fits(layout.pages * count)
        try:
            states = self.memory.put(layout, rows, range(count))
        except MemoryFullError:
            assert not sure
            return
        assert [state.ways for state in states] == list(range(count))
        for state, row in zip(states, rows, strict=False):
            assert state.signature is layout
            self.contents[state] = row.clone()

    def chosen(self, indices):
        states = list(self.contents)
        return [states[index % len(states)] for index in indices]

    @precondition(lambda self: self.contents)
    @rule(indices=st.lists(st.integers(0, 99), min_size=1, max_size=5))
    def claim(self, indices):
        states = self.chosen(indices)
        away = pages_of(state for state in set(states) if not state.place.on_device)
        sure = self.surely_fits(away, states)
        try:
            pages = [place.pages for place in self.memory.claim(states)]
        except MemoryFullError:
            assert not sure
            return
        self.claims.append((states, [(own, self.contents[state]) for own, state in zip(pages, states, strict=True)]))

    @precondition(lambda self: self.claims)
    @rule(index=st.integers(0, 99))
    def release(self, index):
        states, _ = self.claims.pop(index % len(self.claims))
        self.memory.release(states)

    @precondition(lambda self: self.contents)
    @rule(index=st.integers(0, 99))
    def drop(self, index):
        """Forget a handle; whoever claimed the state holds one until it is released."""
        (state,) = self.chosen([index])
        del self.contents[state]

    @invariant()
    def claimed_states_stay_where_they_are(self):
        for _, claimed in self.claims:
            for pages, content in claimed:
                assert torch.equal(self.memory.read(torch.from_numpy(pages)[None])[0], content)

    @invariant()
    def memory_in_use_is_that_of_the_states_that_are_left(self):
        used = self.memory.device_bytes + self.memory.host_bytes
        assert used == sum(state.size_bytes for state in self.live())
        assert self.memory.device_bytes <= self.device_pages * PAGE_BYTES
        assert self.memory.host_bytes <= self.host_pages * PAGE_BYTES

    def teardown(self):
        while self.claims:
            self.release(0)
        while self.contents:  # those on the device go first: there may be no room to bring others back yet
            state = max(self.contents, key=lambda state: state.place.on_device)
            assert torch.equal(read(self.memory, [state])[0], self.contents.pop(state))
            del state
        assert self.memory.device_bytes == self.memory.host_bytes == 0
        everything = self.memory.put(LAYOUTS[0], rows_of(LAYOUTS[0], range(self.device_pages)), [0] * self.device_pages)
        assert torch.equal(torch.stack(read(self.memory, everything)), rows_of(LAYOUTS[0], range(self.device_pages)))


class DeviceOnly(Mixed):
    """The same without a host to move states to."""

    host_pages = 0


TestMixed, TestDeviceOnly = Mixed.TestCase, DeviceOnly.TestCase
TestMixed.settings = TestDeviceOnly.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.fixture
def memory():
    return StateMemory(CPU, 4 * PAGE_BYTES, 4 * PAGE_BYTES)


def put(memory, layout, *numbers):
    return memory.put(layout, rows_of(layout, numbers), [0] * len(numbers))


def test_nothing_of_what_a_page_held_is_left_when_it_is_used_again():
    memory = StateMemory(CPU, 3 * PAGE_BYTES)
    put(memory, LAYOUTS[3], 1)  # fills all pages, and is gone at once
    (small,) = put(memory, LAYOUTS[0], 2)
    (larger,) = put(memory, LAYOUTS[2], 3)
    for state in (small, larger):
        assert not read(memory, [state])[0][state.signature.fields[0].words :].any()


def test_the_least_recently_used_states_leave_the_device_first(memory):
    first, second, third, fourth = put(memory, LAYOUTS[0], 1, 2, 3, 4)
    read(memory, [first])
    newest = put(memory, LAYOUTS[0], 5, 6)
    assert [state.place.on_device for state in (first, second, third, fourth, *newest)] == [
        True, False, False, True, True, True,
    ]  # fmt: skip


def test_states_in_use_stay_on_the_device_until_the_last_of_their_users_is_done(memory):
    states = put(memory, LAYOUTS[0], 1, 2, 3, 4)
    memory.claim(states)
    memory.claim(states[:1] * 2)
    with pytest.raises(MemoryFullError):
        put(memory, LAYOUTS[0], 5)
    memory.release(states)
    others = put(memory, LAYOUTS[0], 5, 6, 7)
    with pytest.raises(MemoryFullError):
        put(memory, LAYOUTS[3], 8)  # there is no room on the host for what would have to leave
    assert states[0].place.on_device
    memory.release(states[:1] * 2)
    for number, state in zip(range(1, 8), [*states, *others], strict=True):
        assert torch.equal(read(memory, [state])[0], rows_of(LAYOUTS[0], [number])[0])


def test_a_failed_claim_claims_nothing(memory):
    away = put(memory, LAYOUTS[0], 1, 2)
    there = put(memory, LAYOUTS[0], 3, 4, 5, 6)
    assert not any(state.place.on_device for state in away)
    memory.claim(there[:3])
    with pytest.raises(MemoryFullError):
        memory.claim([there[3], *away])
    memory.release(there[:3])
    for state in there:
        assert state.place.users == 0
    put(memory, LAYOUTS[0], 7, 8)  # moves two of them away


@pytest.mark.parametrize("moves", [False, True])
def test_memory_is_not_lost_when_writing_it_fails(memory, monkeypatch, moves):
    kept = put(memory, LAYOUTS[0], *range(1, 5 if moves else 4))

    def fail(*_):
        raise RuntimeError("no memory for the copy")

    with monkeypatch.context() as patched:
        patched.setattr(*((memory._copies, "out") if moves else (memory._device, "write")), fail)
        with pytest.raises(RuntimeError, match="no memory"):
            put(memory, LAYOUTS[0], 9)
    assert memory.device_bytes == sum(state.size_bytes for state in kept)
    assert memory.host_bytes == 0
    for number, state in enumerate(kept, 1):
        assert torch.equal(read(memory, [state])[0], rows_of(LAYOUTS[0], [number])[0])


def test_memory_is_not_lost_when_bringing_states_back_fails(memory, monkeypatch):
    away = put(memory, LAYOUTS[0], 1, 2)
    there = put(memory, LAYOUTS[0], 3, 4, 5, 6)

    def fail(*_):
        raise RuntimeError("no memory for the copy")

    with monkeypatch.context() as patched:
        patched.setattr(memory._copies, "back", fail)
        with pytest.raises(RuntimeError, match="no memory"):
            memory.claim(away)
    assert memory.device_bytes + memory.host_bytes == sum(state.size_bytes for state in [*away, *there])
    for number, state in enumerate([*away, *there], 1):
        assert torch.equal(read(memory, [state])[0], rows_of(LAYOUTS[0], [number])[0])


@pytest.fixture
def early():
    return StateMemory(CPU, 4 * PAGE_BYTES, 8 * PAGE_BYTES, EarlyCopies())


def test_states_that_are_expected_are_brought_back_and_others_give_way(early):
    first, second, third, fourth, *_ = states = put(early, LAYOUTS[0], 1, 2, 3, 4)
    there = put(early, LAYOUTS[0], 5, 6, 7, 8)
    assert not any(state.place.on_device for state in states)
    for state in (there[0], first, first, second, third):
        early.request_prefetch(state)
    early.prefetch()
    assert [state.place.on_device for state in (first, second)] == [True, True]
    assert not third.place.on_device, "they would fill more than half of the device"
    assert [state.place.on_device for state in there] == [True, False, False, True]
    early.prefetch()
    assert third.place.on_device, "the rest is still expected"
    for number, state in enumerate([*states, *there], 1):
        assert torch.equal(read(early, [state])[0], rows_of(LAYOUTS[0], [number])[0])
    assert not fourth.place.users


def test_states_are_fetched_as_far_as_there_is_room_for_those_that_give_way():
    memory = StateMemory(CPU, 4 * PAGE_BYTES, 3 * PAGE_BYTES, EarlyCopies())
    states = put(memory, LAYOUTS[0], 1, 2)
    there = put(memory, LAYOUTS[0], 3, 4, 5, 6)
    assert memory.host_bytes == 2 * PAGE_BYTES
    for state in states:
        memory.request_prefetch(state)
    memory.prefetch()
    assert [state.place.on_device for state in states] == [True, False]
    assert sum(state.place.on_device for state in there) == 3


def test_a_state_that_has_no_room_holds_up_no_others(early):
    (large,) = put(early, LAYOUTS[3], 1)
    (small,) = put(early, LAYOUTS[0], 2)
    there = put(early, LAYOUTS[0], 3, 4, 5, 6)
    early.request_prefetch(large)
    early.request_prefetch(small)
    early.prefetch()
    assert not large.place.on_device, "it would fill more than half of the device"
    assert small.place.on_device
    assert not early._requested
    del there


def test_a_fetch_that_fails_is_only_told_of(early, monkeypatch):
    (state,) = put(early, LAYOUTS[0], 1)
    _there = put(early, LAYOUTS[0], 3, 4, 5, 6)

    def fail(*_):
        raise RuntimeError("no memory for the copy")

    with monkeypatch.context() as patched, capture_logs() as logs:
        patched.setattr(early._copies, "back", fail)
        early.request_prefetch(state)
        early.prefetch()
    assert [line["event"] for line in logs] == ["states not prefetched"]
    assert torch.equal(read(early, [state])[0], rows_of(LAYOUTS[0], [1])[0])


def test_states_that_are_gone_or_have_no_room_are_not_brought_back(early):
    states = put(early, LAYOUTS[0], 1, 2)
    there = put(early, LAYOUTS[0], 3, 4, 5, 6)
    for state in states:
        early.request_prefetch(state)
    early.claim(there)
    early.prefetch()
    assert not any(state.place.on_device for state in states), "there is no room"
    early.release(there)
    for state in states:
        early.request_prefetch(state)
    del state, states
    early.prefetch()
    assert early.device_bytes == 4 * PAGE_BYTES
    assert early.host_bytes == 0


def test_nothing_is_remembered_of_states_where_copying_early_gains_nothing(memory):
    (state,) = put(memory, LAYOUTS[0], 1)
    memory.request_prefetch(state)
    assert not memory._requested


def test_threads_that_share_states_never_read_anothers():
    memory = StateMemory(CPU, 48 * PAGE_BYTES, 64 * PAGE_BYTES)
    numbers, shared, done = itertools.count(1), {}, threading.Event()
    errors, moves, reads = [], [], []
    sharing = threading.Lock()

    def work(seed):
        chance = random.Random(seed)
        while not done.is_set():
            layout = chance.choice(LAYOUTS)
            own = [next(numbers) for _ in range(chance.randint(1, 4))]
            try:
                made = memory.put(layout, rows_of(layout, own), own)
            except MemoryFullError:
                made = []
            with sharing:
                shared.update(zip(made, own, strict=False))
                del made
                while len(shared) > 40:
                    del shared[chance.choice(list(shared))]
                chosen = dict(chance.sample(list(shared.items()), min(len(shared), 5)))
            moves.append(memory.host_bytes)
            try:
                contents = read(memory, list(chosen))
            except MemoryFullError:
                continue
            for (state, number), content in zip(chosen.items(), contents, strict=True):
                assert torch.equal(content, rows_of(state.signature, [number])[0])
            reads.append(len(contents))
            del chosen, state

    def watch(seed):
        try:
            work(seed)
        except BaseException as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=watch, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(1)
        done.set()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not errors
    assert max(moves) > 0
    assert sum(reads) > 100
    shared.clear()
    assert memory.device_bytes == memory.host_bytes == 0
