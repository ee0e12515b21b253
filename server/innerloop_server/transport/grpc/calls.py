"""The frame of all RPCs: request id, identity, errors, metrics, a log line, and the end of the server."""

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import NoReturn, TypeAlias, TypeVar

import structlog

from innerloop_server.domain.callers import Caller
from innerloop_server.domain.deadline import Deadline
from innerloop_server.domain.errors import ServerError, ShuttingDownError
from innerloop_server.observability.call_metrics import NO_MODEL, CallMetrics
from innerloop_server.transport.grpc.gate import STRANGER, Gate
from innerloop_server.transport.grpc.identity import Context
from innerloop_server.transport.grpc.registration import Unreadable
from innerloop_server.transport.grpc.status import DETAILS_KEY, Failure, failure_of, internal_failure

Request = TypeVar("Request")
Response = TypeVar("Response")

REQUEST_ID_KEY = "innerloop-request-id"
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

CLOCK_SECONDS = 0.05
"""Seconds by which a client's deadline may come before the server's: the client's clock starts when it sends the
request."""

# A log line for each of these would cost more than answering it, so they are logged at the debug level.
QUIET = frozenset({"Predict"})

REFUSED = "RESOURCE_EXHAUSTED"
"""Status of requests that are refused because there are too many; a log line for each would be one more burden."""


@dataclass(slots=True)
class Call:
    """One RPC under way.

    Attributes:
        request_id: names it in logs; the client's own if it sent a usable one.
        caller: who makes it; a stranger until it was let in.
        deadline: after which its answer is of no use.
        model: name of the model that the call is about, once that is known, for metrics.
        version: version of it that adapts or answers, once that is known.
        queries: how many a stream has asked so far.
    """

    request_id: str
    caller: Caller
    deadline: Deadline
    model: str = NO_MODEL
    version: str = ""
    queries: int = 0


Body: TypeAlias = Callable[[Request, Call], Awaitable[Response]]
"""Answers a request of one RPC."""

Report: TypeAlias = Callable[[str, Call, str, float], None]
"""Is told the RPC, the call, the name of its status code, and the seconds that it took."""


class Calls:
    """Runs the body of every RPC.

    Args:
        gate: lets callers in.
        metrics: counts and times calls.
    """

    def __init__(self, gate: Gate, metrics: CallMetrics) -> None:
        self._gate = gate
        self._metrics = metrics
        self._log = structlog.get_logger()
        self._loop = asyncio.get_running_loop()
        self._open = True
        self._active = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._close_listeners: set[Callable[[], object]] = set()

    async def run(self, rpc: str, body: Body[Request, Response], request: Request, context: Context) -> Response:
        """Answer one RPC with `body`, or abort it with the status that its error stands for."""
        if isinstance(request, Unreadable):
            return await self._run(rpc, _refuse_unreadable, request, context, self._report)
        return await self._run(rpc, body, request, context, self._report)

    async def run_stream(self, rpc: str, body: Body[Context, None], context: Context) -> None:
        """Run one stream with `body`, or abort it. The stream is logged; `answer` counts its queries."""
        await self._run(rpc, body, context, context, self._log_stream)

    async def answer(
        self, rpc: str, body: Body[Request, Response], request: Request, stream: Call, context: Context
    ) -> Response | Failure:
        """Answer one query of a stream with `body`, or say why it failed.

        A query is let in and counted like an RPC of its own: a credential that is valid no more ends with the query
        that follows.
        """
        stream.queries += 1
        call = Call(stream.request_id, STRANGER, stream.deadline)
        return await self._attempt(rpc, self._admitted(rpc, body, context), request, call, self._count)

    def close(self) -> None:
        """Refuse calls from now on; those under way go on."""
        self._open = False
        for listener in tuple(self._close_listeners):
            listener()

    @contextmanager
    def on_close(self, listener: Callable[[], object]) -> Iterator[None]:
        """Call `listener` if `close` is called inside."""
        self._close_listeners.add(listener)
        try:
            yield
        finally:
            self._close_listeners.discard(listener)

    async def wait_idle(self) -> None:
        """Wait until no call is under way."""
        await self._idle.wait()

    async def _run(
        self, rpc: str, body: Body[Request, Response], request: Request, context: Context, report: Report
    ) -> Response:
        call = Call(_request_id(context), STRANGER, Deadline(context.time_remaining()))
        context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
        accepted = self._enter()
        try:
            admitted = self._admitted(rpc, body, context) if accepted else _refuse
            outcome = await self._attempt(rpc, admitted, request, call, report)
            if isinstance(outcome, Failure):
                await _abort(context, call, outcome)
            return outcome
        finally:
            if accepted:
                self._leave()

    def _admitted(self, rpc: str, body: Body[Request, Response], context: Context) -> Body[Request, Response]:
        """The same body, for callers who may make the RPC."""

        async def admitted(request: Request, call: Call) -> Response:
            call.caller = await self._gate.admit(rpc, context)
            return await body(request, call)

        return admitted

    async def _attempt(
        self, rpc: str, body: Body[Request, Response], request: Request, call: Call, report: Report
    ) -> Response | Failure:
        started = perf_counter()
        status = "OK"
        try:
            return await body(request, call)
        except asyncio.CancelledError:
            # gRPC cancels a call whose client has left, and one whose deadline has passed.
            status = "DEADLINE_EXCEEDED" if call.deadline.within(CLOCK_SECONDS) else "CANCELLED"
            raise
        except ServerError as error:
            failure = failure_of(error)
            status = failure.code.name
            return failure
        except Exception:
            status = "INTERNAL"
            self._log.exception("request failed", rpc=rpc, request_id=call.request_id, model=call.model)
            return internal_failure(call.request_id)
        finally:
            # The answer comes first: gRPC sends it before the event loop turns to anything else.
            self._loop.call_soon(report, rpc, call, status, perf_counter() - started)

    def _report(self, rpc: str, call: Call, status: str, seconds: float) -> None:
        self._count(rpc, call, status, seconds)
        log = self._log.debug if (status == "OK" and rpc in QUIET) or status == REFUSED else self._log.info
        log(
            "request",
            rpc=rpc,
            request_id=call.request_id,
            model=call.model,
            status=status,
            milliseconds=round(seconds * 1e3, 3),
        )

    def _log_stream(self, rpc: str, call: Call, status: str, seconds: float) -> None:
        self._log.info(
            "stream",
            rpc=rpc,
            request_id=call.request_id,
            queries=call.queries,
            status=status,
            milliseconds=round(seconds * 1e3, 3),
        )

    def _count(self, rpc: str, call: Call, status: str, seconds: float) -> None:
        self._metrics.request(rpc, call.model, call.version, status, seconds)

    def _enter(self) -> bool:
        """Count a call as under way, unless calls are refused: refused ones must not hold up the stop."""
        if self._open:
            self._active += 1
            self._idle.clear()
        return self._open

    def _leave(self) -> None:
        self._active -= 1
        if not self._active:
            self._idle.set()


async def _refuse(request: object, call: Call) -> NoReturn:
    del request, call
    raise ShuttingDownError


async def _refuse_unreadable(request: Unreadable, call: Call) -> NoReturn:
    del call
    raise request.error


async def _abort(context: Context, call: Call, failure: Failure) -> NoReturn:
    metadata = ((REQUEST_ID_KEY, call.request_id), (DETAILS_KEY, failure.details))
    await context.abort(failure.code, failure.message, metadata)
    raise AssertionError  # abort always raises


def _request_id(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_KEY and isinstance(value, str) and REQUEST_ID.fullmatch(value):
            return value
    return new_request_id()


def new_request_id() -> str:
    """A request id for a call whose client names none."""
    return secrets.token_hex(8)
