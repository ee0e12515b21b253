"""Copies of states beside a GPU's work, on streams that run in any order that they may."""

import itertools
import random

import pytest
import torch
from streams import Event, Streams
from test_state_memory import CPU, LAYOUTS, rows_of

from innerloop_server.engine.interface import MemoryFullError
from innerloop_server.engine.pytorch.state_copies import StreamCopies
from innerloop_server.engine.pytorch.state_memory import PAGE_BYTES, StateMemory


@pytest.mark.parametrize("seed", range(60))
def test_every_state_reads_back_its_own_content_whatever_runs_first(monkeypatch, seed):
    chance = random.Random(seed)
    numbers, contents, reads = itertools.count(1), {}, []
    with Streams(chance, monkeypatch) as streams:
        memory = StateMemory(CPU, 8 * PAGE_BYTES, 24 * PAGE_BYTES, StreamCopies(CPU))

        def put():
            layout, count = chance.choice(LAYOUTS), chance.randint(1, 2)
            own = [next(numbers) for _ in range(count)]
            contents.update(zip(memory.put(layout, rows_of(layout, own), own), own, strict=True))

        def read():
            layout = chance.choice(list(contents)).signature
            states = chance.sample(same := [one for one in contents if one.signature is layout], min(2, len(same)))
            pages = [place.pages for place in memory.claim(states)]
            reads.append(
                (memory.read(torch.tensor([own.tolist() for own in pages])), [contents[one] for one in states], layout)
            )
            memory.release(states)

        def expect():
            memory.request_prefetch(chance.choice(list(contents)))

        def drop():
            contents.pop(chance.choice(list(contents)))

        actions = [put, put, read, read, expect, expect, memory.prefetch, drop]
        for _ in range(80):
            action = chance.choice(actions) if contents else put
            try:
                action()
            except MemoryFullError:
                contents.clear()
            streams.run(chance.randint(0, 6))
        streams.run()
        assert memory.host_bytes <= 24 * PAGE_BYTES
    assert len(reads) > 5
    for rows, own, layout in reads:
        assert torch.equal(rows, rows_of(layout, own))


def test_states_come_back_without_waiting_for_work_that_was_given_since(monkeypatch):
    """A batch that runs is in nobody's way: only what it writes is waited for."""
    with Streams(random.Random(0), monkeypatch) as streams:
        memory = StateMemory(CPU, 2 * PAGE_BYTES, 4 * PAGE_BYTES, StreamCopies(CPU))
        away = memory.put(LAYOUTS[0], rows_of(LAYOUTS[0], [1]), [0])
        there = memory.put(LAYOUTS[0], rows_of(LAYOUTS[0], [2, 3]), [0, 0])
        del there
        streams.run()
        work, out, back = streams.made
        work.waiting.append(never := Event())
        memory.request_prefetch(away[0])
        memory.prefetch()
        streams.run(100)
        assert not back.waiting
        assert streams.recorded == [out, work], "whose memory the other stream reads"
        assert work.waiting[0] is never
        assert away[0].place.on_device
