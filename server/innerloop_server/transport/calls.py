"""What all RPCs have in common: request id, identity, errors, metrics, a log line, and a server that may stop."""

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter
from typing import NoReturn, TypeVar

import structlog

from innerloop_server.errors import ServerError, ShuttingDownError
from innerloop_server.observability.call_metrics import NO_MODEL, CallMetrics
from innerloop_server.scheduling.job import Deadline
from innerloop_server.transport.identity import Context, Identify
from innerloop_server.transport.status import DETAILS_KEY, Failure, failure_of, internal_failure

Request = TypeVar("Request")
Response = TypeVar("Response")

REQUEST_ID_KEY = "innerloop-request-id"
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

# One line for each of these at the info level would cost more than answering them.
QUIET = frozenset({"Predict"})


@dataclass(slots=True)
class Call:
    """One RPC under way.

    Attributes:
        request_id: names it in logs; the client's own if it sent a usable one.
        owner: identity of the caller.
        deadline: after which its answer is of no use.
        model: the server's model it turned out to be about, for metrics.
    """

    request_id: str
    owner: str
    deadline: Deadline
    model: str = NO_MODEL


class Calls:
    """Runs the body of every RPC.

    Args:
        identify: names callers.
        metrics: counts and times calls.
    """

    def __init__(self, identify: Identify, metrics: CallMetrics) -> None:
        self._identify = identify
        self._metrics = metrics
        self._log = structlog.get_logger()
        self._loop = asyncio.get_running_loop()
        self._open = True
        self._active = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(
        self,
        rpc: str,
        body: Callable[[Request, Call], Awaitable[Response]],
        request: Request,
        context: Context,
    ) -> Response:
        """Answer one RPC with `body`, or abort it with the status that its error stands for."""
        started = perf_counter()
        call = Call(_request_id(context), self._identify(context), Deadline(context.time_remaining()))
        context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
        status = "OK"
        accepted = self._enter()
        try:
            if not accepted:
                raise ShuttingDownError
            return await body(request, call)
        except asyncio.CancelledError:
            # gRPC cancels a call whose client has left, and one whose deadline has passed.
            status = "DEADLINE_EXCEEDED" if call.deadline.passed else "CANCELLED"
            raise
        except ServerError as error:
            failure = failure_of(error)
            status = failure.code.name
            await _abort(context, call, failure)
        except Exception:
            status = "INTERNAL"
            self._log.exception("request failed", rpc=rpc, request_id=call.request_id, model=call.model)
            await _abort(context, call, internal_failure(call.request_id))
        finally:
            # The answer comes first: gRPC sends it before the event loop turns to anything else.
            self._loop.call_soon(self._report, rpc, call, status, perf_counter() - started)
            if accepted:
                self._leave()

    def close(self) -> None:
        """Refuse calls from now on; those under way go on."""
        self._open = False

    async def wait_idle(self) -> None:
        """Wait until no call is under way."""
        await self._idle.wait()

    def _report(self, rpc: str, call: Call, status: str, seconds: float) -> None:
        self._metrics.request(rpc, call.model, status, seconds)
        log = self._log.debug if status == "OK" and rpc in QUIET else self._log.info
        log(
            "request",
            rpc=rpc,
            request_id=call.request_id,
            model=call.model,
            status=status,
            milliseconds=round(seconds * 1e3, 3),
        )

    def _enter(self) -> bool:
        """Count a call as under way, unless calls are refused: those must not hold up the stop."""
        if self._open:
            self._active += 1
            self._idle.clear()
        return self._open

    def _leave(self) -> None:
        self._active -= 1
        if not self._active:
            self._idle.set()


async def _abort(context: Context, call: Call, failure: Failure) -> NoReturn:
    metadata = ((REQUEST_ID_KEY, call.request_id), (DETAILS_KEY, failure.details))
    await context.abort(failure.code, failure.message, metadata)
    raise AssertionError  # abort always raises


def _request_id(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_KEY and isinstance(value, str) and REQUEST_ID.fullmatch(value):
            return value
    return secrets.token_hex(8)
