"""Decoding beside the event loop."""

import asyncio
import threading

import pytest

from innerloop_server.domain.errors import OverloadedError
from innerloop_server.transport.grpc.decoders import Decoders


async def test_light_work_is_done_at_once_and_heavy_work_in_a_thread():
    decoders = Decoders()
    assert await decoders.run(threading.get_ident, heavy=False) == threading.get_ident()
    assert await decoders.run(threading.get_ident, heavy=True) != threading.get_ident()


async def test_heavy_work_does_not_hold_up_the_event_loop_and_may_not_pile_up():
    decoders, gate = Decoders(threads=1, most=2), threading.Event()
    waiting = [asyncio.create_task(decoders.run(gate.wait, heavy=True)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError) as refused:
        await decoders.run(gate.wait, heavy=True)
    assert refused.value.retry_after
    gate.set()
    assert await asyncio.gather(*waiting) == [True, True]
    assert await decoders.run(gate.wait, heavy=True)
