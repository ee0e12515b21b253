"""Health and reflection, which gRPC brings along, behind the same frame as our own services.

Without it, bytes that are no message are answered with the words of Python's exception, and logged with a traceback.
"""

import inspect
from collections.abc import AsyncIterable, Awaitable, Callable
from functools import partial
from typing import Any, NoReturn

import grpc
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from innerloop_server.domain.errors import ServerError
from innerloop_server.transport.grpc.calls import new_request_id
from innerloop_server.transport.grpc.gate import Gate
from innerloop_server.transport.grpc.identity import Context
from innerloop_server.transport.grpc.registration import Unreadable, never_raising, not_a
from innerloop_server.transport.grpc.status import DETAILS_KEY, Failure, failure_of, internal_failure

Admit = Callable[[Context], Awaitable[object]]
"""Raises a ServerError if the caller may not make an RPC."""


def add_standard_service(service: ServiceDescriptor, servicer: object, gate: Gate, server: grpc.aio.Server) -> None:
    """Have `servicer` answer the methods of `service` that it implements for asyncio.

    Args:
        service: description of the service.
        servicer: made for `grpc.aio`; its methods take a request or a stream of requests, as the description says.
        gate: lets callers in.
        server: server that is not started yet.
    """
    handlers = {}
    for method in service.methods:
        behavior, kind = getattr(servicer, method.name), method.input_type.name
        admit = partial(gate.admit, method.name)
        codec: dict[str, Any] = {
            "request_deserializer": GetMessageClass(method.input_type).FromString,
            "response_serializer": GetMessageClass(method.output_type).SerializeToString,
        }
        if inspect.isasyncgenfunction(behavior):
            handlers[method.name] = grpc.stream_stream_rpc_method_handler(_stream(behavior, kind, admit), **codec)
        elif inspect.iscoroutinefunction(behavior):
            streams = method.server_streaming
            make = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
            codec["request_deserializer"] = never_raising(codec["request_deserializer"], kind)
            handlers[method.name] = make(_single(behavior, admit), **codec)
    server.add_registered_method_handlers(service.full_name, handlers)


def _single(
    behavior: Callable[[Any, Context], Awaitable[Any]], admit: Admit
) -> Callable[[Any, Context], Awaitable[Any]]:
    async def guarded(request: Any, context: Context) -> Any:
        try:
            await admit(context)
            if isinstance(request, Unreadable):
                raise request.error
            return await behavior(request, context)
        except grpc.aio.AbortError:
            raise
        except ServerError as error:
            await _abort(context, failure_of(error))
        except Exception:
            await _fail(context)

    return guarded


def _stream(
    behavior: Callable[[AsyncIterable[Any], Context], AsyncIterable[Any]], kind: str, admit: Admit
) -> Callable[[AsyncIterable[Any], Context], AsyncIterable[Any]]:
    async def guarded(requests: AsyncIterable[Any], context: Context) -> AsyncIterable[Any]:
        try:
            await admit(context)
            async for response in behavior(requests, context):
                yield response
        except grpc.aio.AbortError:
            raise
        except DecodeError:
            await _abort(context, failure_of(not_a(kind)))
        except ServerError as error:
            await _abort(context, failure_of(error))
        except Exception:
            await _fail(context)

    return guarded


async def _fail(context: Context) -> NoReturn:
    request_id = new_request_id()
    structlog.get_logger().exception("request failed", request_id=request_id)
    await _abort(context, internal_failure(request_id))


async def _abort(context: Context, failure: Failure) -> NoReturn:
    await context.abort(failure.code, failure.message, ((DETAILS_KEY, failure.details),))
    raise AssertionError  # abort always raises
