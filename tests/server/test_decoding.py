"""Decoding beside the event loop."""

import asyncio
import threading
import time

import pytest

from innerloop_server.domain.errors import OverloadedError
from innerloop_server.transport.codec.turns import turn
from innerloop_server.transport.grpc.decoders import Decoders


async def test_light_work_is_done_at_once_and_heavy_work_in_a_thread():
    decoders = Decoders()
    assert await decoders.run(threading.get_ident, heavy=False, account="a") == threading.get_ident()
    assert await decoders.run(threading.get_ident, heavy=True, account="a") != threading.get_ident()


async def test_heavy_work_does_not_hold_up_the_event_loop_and_may_not_pile_up():
    decoders, gate = Decoders(most=8), threading.Event()
    waiting = [asyncio.create_task(decoders.run(gate.wait, heavy=True, account="a")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError) as refused:
        await decoders.run(gate.wait, heavy=True, account="a")
    assert refused.value.retry_after
    gate.set()
    assert await asyncio.gather(*waiting) == [True, True]
    assert await decoders.run(gate.wait, heavy=True, account="a")


async def test_one_account_can_not_use_up_the_room_for_all():
    decoders, gate = Decoders(most=8), threading.Event()
    waiting = [asyncio.create_task(decoders.run(gate.wait, heavy=True, account="greedy")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match="your large requests"):
        await decoders.run(gate.wait, heavy=True, account="greedy")
    assert await decoders.run(threading.get_ident, heavy=True, account="polite")
    gate.set()
    await asyncio.gather(*waiting)


async def test_accounts_take_turns_image_by_image():
    decoders, order = Decoders(places=1), []

    def decode(name, images, cost):
        for _ in range(images):
            with turn(cost):
                order.append(name)
                time.sleep(0.005)

    greedy = [
        asyncio.create_task(decoders.run(lambda: decode("greedy", 20, 49_000_000), heavy=True, account="greedy"))
        for _ in range(4)
    ]
    while not order:
        await asyncio.sleep(0.001)
    before = len(order)
    await decoders.run(lambda: decode("polite", 10, 100_000), heavy=True, account="polite")
    assert order.count("greedy") - before <= 3
    await asyncio.gather(*greedy)


async def test_a_large_image_leaves_a_place_to_small_ones():
    decoders, gate, inside = Decoders(places=2), threading.Event(), threading.Event()

    def decode_large():
        with turn(49_000_000):
            inside.set()
            gate.wait()

    def decode_small():
        with turn(100):
            return True

    large = [asyncio.create_task(decoders.run(decode_large, heavy=True, account=account)) for account in ("one", "two")]
    await asyncio.to_thread(inside.wait)
    assert await asyncio.wait_for(decoders.run(decode_small, heavy=True, account="three"), 10)
    gate.set()
    await asyncio.gather(*large)


async def test_what_nobody_waits_for_is_decoded_no_further():
    decoders, decoded, ended = Decoders(places=1), [], threading.Event()

    def decode():
        try:
            for index in range(1000):
                with turn(1):
                    decoded.append(index)
                    time.sleep(0.002)
        finally:
            ended.set()

    call = asyncio.create_task(decoders.run(decode, heavy=True, account="a"))
    while not decoded:
        await asyncio.sleep(0.001)
    call.cancel()
    assert await asyncio.to_thread(ended.wait, 10)
    assert len(decoded) < 1000
