"""The bound on bytes of messages under way."""

import asyncio

from innerloop_server.transport.grpc.byte_budget import ByteBudget


async def has_room(budget):
    waiting = asyncio.create_task(budget.wait_for_room())
    await asyncio.sleep(0.01)
    found = waiting.done()
    waiting.cancel()
    return found


async def test_nothing_more_is_read_until_enough_is_given_back():
    budget = ByteBudget(10)
    budget.count(9)
    assert await has_room(budget)
    budget.count(5)
    waiting = asyncio.create_task(budget.wait_for_room())
    budget.count(-4)
    await asyncio.sleep(0.01)
    assert not waiting.done()
    budget.count(-1)
    await asyncio.wait_for(waiting, 1)


async def test_what_counts_against_one_counts_against_the_one_that_it_is_a_part_of():
    whole = ByteBudget(10)
    first, second = ByteBudget(8, whole), ByteBudget(8, whole)
    first.count(7)
    second.count(7)
    assert not await has_room(first)
    first.count(-7)
    assert await has_room(second)
