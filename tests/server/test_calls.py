"""What all RPCs have in common, over a real port."""

import asyncio
import json

import grpc
import pytest
import structlog
from wire import problem

from innerloop.v1 import model_pb2 as pb
from innerloop.v1.model_pb2_grpc import ModelServiceServicer, ModelServiceStub, add_ModelServiceServicer_to_server
from innerloop_server.domain.callers import Caller, Scope
from innerloop_server.domain.errors import AdminDisabledError
from innerloop_server.transport.grpc.calls import Calls
from innerloop_server.transport.grpc.gate import Gate
from innerloop_server.transport.grpc.identity import anonymous

SECRET = "/home/operator/secret.py"


class FaultyServicer(ModelServiceServicer):
    """Answers with whatever its body does."""

    def __init__(self, calls):
        self._calls = calls
        self.body = None

    async def ListModels(self, request, context):  # noqa: N802 - named by the contract
        return await self._calls.run("ListModels", self.body, request, context)


@pytest.fixture
async def calls(metrics):
    return Calls(Gate(anonymous, admin=False, downloads=False), metrics)


@pytest.fixture
async def servicer(calls):
    return FaultyServicer(calls)


@pytest.fixture
async def call(servicer):
    server = grpc.aio.server()
    add_ModelServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:

        async def call(body, **keywords):
            servicer.body = body
            return await ModelServiceStub(channel).ListModels(pb.ListModelsRequest(), **keywords)

        yield call
    await server.stop(None)


async def fail(_, call):
    del call
    raise RuntimeError(SECRET)


async def test_a_fault_of_the_server_reaches_its_log_with_a_trace_and_the_client_without(call, value, capsys):
    structlog.configure(processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer()])
    try:
        with pytest.raises(grpc.RpcError) as refused:
            await call(fail, metadata=(("innerloop-request-id", "find-me"),))
        await asyncio.sleep(0.05)  # the log and the metrics come after the answer
    finally:
        structlog.reset_defaults()
    found = problem(refused.value)
    assert (found.code, found.reason, found.request_id) == (grpc.StatusCode.INTERNAL, "INTERNAL", "find-me")
    assert SECRET not in str(refused.value)
    assert "find-me" in found.message
    logged = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (failure,) = [line for line in logged if line["event"] == "request failed"]
    assert failure["request_id"] == "find-me"
    assert SECRET in failure["exception"]
    assert value("innerloop_requests_total", rpc="ListModels", model="", status="INTERNAL") == 1


async def test_a_domain_error_is_answered_with_its_status(call):
    async def refuse(_, call):
        call.model = "somewhere"
        raise AdminDisabledError

    with pytest.raises(grpc.RpcError) as refused:
        await call(refuse)
    assert problem(refused.value).reason == "ADMIN_DISABLED"


async def test_a_call_knows_its_caller_and_how_long_it_may_take(call):
    seen = []

    async def answer(_, call):
        seen.append(call)
        return pb.ListModelsResponse()

    await call(answer)
    await call(answer, timeout=100)
    assert seen[0].caller == Caller("anonymous", "ipv4:127.0.0.1", frozenset(Scope))
    assert seen[0].deadline.at == float("inf")
    assert not seen[1].deadline.passed
    assert seen[1].deadline.at < float("inf")


async def test_closing_refuses_new_calls_and_waits_for_those_under_way(call, calls):
    go_on = asyncio.Event()

    async def wait(_, call):
        del call
        await go_on.wait()
        return pb.ListModelsResponse()

    under_way = asyncio.create_task(call(wait))
    await asyncio.sleep(0.1)
    calls.close()
    with pytest.raises(grpc.RpcError) as refused:
        await call(wait)
    assert problem(refused.value).reason == "SHUTTING_DOWN"
    idle = asyncio.create_task(calls.wait_idle())
    await asyncio.sleep(0.05)
    assert not idle.done()
    go_on.set()
    assert await under_way == pb.ListModelsResponse()
    await idle
