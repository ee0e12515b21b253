"""How many calls the server takes in."""

import asyncio
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from innerloop_server.transport.grpc.waiting_calls import WAITING_CALLS, waiting_options

SURPLUS = 100
BUSY_SECONDS = 1.5


async def answer(request, _):
    return request


def call_at_once(port, count):
    """How the calls end that are made while the server's event loop is busy, and one of another RPC after them."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        calls = [channel.unary_unary("/service/Many").future(b"", timeout=30) for _ in range(count)]
        other = channel.unary_unary("/service/Other").future(b"", timeout=30)
        return Counter(call.code() for call in calls), other.code()


@pytest.mark.parametrize("surplus", [0, SURPLUS])
async def test_a_burst_is_answered_and_what_exceeds_it_is_refused_unread(surplus):
    server = grpc.aio.server(options=waiting_options())
    handler = grpc.unary_unary_rpc_method_handler(answer)
    server.add_registered_method_handlers("service", {"Many": handler, "Other": handler})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with ThreadPoolExecutor(1) as threads:
        ended = asyncio.wrap_future(threads.submit(call_at_once, port, WAITING_CALLS + surplus))
        if surplus:
            time.sleep(BUSY_SECONDS)  # holds up the event loop, as too many calls do
        codes, other = await ended
    await server.stop(None)
    assert codes[grpc.StatusCode.OK] >= WAITING_CALLS
    assert codes.total() == WAITING_CALLS + surplus
    assert other is grpc.StatusCode.OK, "one RPC's flood does not refuse another"
    if surplus:
        assert codes[grpc.StatusCode.CANCELLED] >= surplus - 5, "a few are taken in while the others come"
