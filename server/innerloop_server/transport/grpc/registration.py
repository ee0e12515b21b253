"""Registers a servicer's methods with a gRPC server."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from innerloop_server.domain.errors import FieldViolation, InvalidRequestError
from innerloop_server.transport.codec.wire_limits import at_most

_MAKE = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
"""What makes handlers, by whether clients and servers stream."""

MOST_BYTES = 2 * 2**20
"""Most bytes of requests that carry no examples."""


class Unreadable(NamedTuple):
    """Stands for a request whose bytes are no message of the kind that its method takes, or hold too much."""

    error: InvalidRequestError


def add_service(
    service: ServiceDescriptor, servicer: object, readers: Mapping[str, Callable[[bytes], Any]], server: grpc.aio.Server
) -> None:
    """Have `servicer` answer all methods of `service`, each with its method of the same name.

    Generated code would do the same, with three differences: methods of streams read and write through their context,
    `readers` may make more of a request than its message, and methods of a single request are given `Unreadable` ones.

    Args:
        service: its description.
        servicer: what answers.
        readers: functions that make requests of the bytes that arrive, by method; others are given the message itself.
        server: not started yet.
    """
    handlers = {
        method.name: _handler(method, getattr(servicer, method.name), readers.get(method.name))
        for method in service.methods
    }
    server.add_registered_method_handlers(service.full_name, handlers)


def _handler(method: MethodDescriptor, behavior: Any, reader: Callable[[bytes], Any] | None) -> Any:
    read = reader or at_most(MOST_BYTES, GetMessageClass(method.input_type).FromString)
    streams = method.client_streaming
    return _MAKE[method.client_streaming, method.server_streaming](
        behavior,
        request_deserializer=read if streams else never_raising(read, method.input_type.name),
        response_serializer=GetMessageClass(method.output_type).SerializeToString,
    )


def never_raising(read: Callable[[bytes], Any], kind: str) -> Callable[[bytes], Any]:
    """Reads requests, or says that they are unreadable: gRPC would answer with what was raised, and log it."""

    def reader(content: bytes) -> Any:
        try:
            return read(content)
        except DecodeError:
            return Unreadable(not_a(kind))
        except InvalidRequestError as error:
            return Unreadable(error)

    return reader


def not_a(kind: str) -> InvalidRequestError:
    """The error of a message that can't be read."""
    return InvalidRequestError([FieldViolation("message", f"is not a {kind}")])
