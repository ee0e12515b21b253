"""Turns strangers away before their requests are read."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NoReturn

import grpc

from innerloop_server.domain.errors import UnauthenticatedError
from innerloop_server.transport.grpc.calls import Call, Calls
from innerloop_server.transport.grpc.gate import NEEDED, Access
from innerloop_server.transport.grpc.identity import Context, Identity


class Strangers(grpc.aio.ServerInterceptor):
    """Reads nothing of a call that the gate won't let in for its credential.

    gRPC reads a whole request and parses it before its servicer is asked. Strangers shall not cost the memory and the
    time for that. Metadata, which carry the credential, come first.

    Args:
        identity: knows credentials.
        calls: answer those that are turned away, like all others.
    """

    def __init__(self, identity: Identity, calls: Calls) -> None:
        self._identity = identity
        self._calls = calls

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """The handler of a call: its servicer's, or for strangers one that reads nothing."""
        rpc = handler_call_details.method.rpartition("/")[2]
        open_to_anybody = NEEDED.get(rpc, Access.ANYBODY) is Access.ANYBODY
        if open_to_anybody or await self._identity.may_know(handler_call_details.invocation_metadata):
            return await continuation(handler_call_details)
        return grpc.stream_stream_rpc_method_handler(partial(self._turn_away, rpc))

    async def _turn_away(self, rpc: str, requests: object, context: Context) -> None:
        del requests  # which are read by whoever asks for them, and so by nobody
        await self._calls.run(rpc, _refuse, None, context)


async def _refuse(request: object, call: Call) -> NoReturn:
    del request, call
    raise UnauthenticatedError
