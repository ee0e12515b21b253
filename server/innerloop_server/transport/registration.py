"""Registers a servicer's methods with a gRPC server."""

from collections.abc import Callable, Mapping
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass


def add_service(
    service: ServiceDescriptor, servicer: object, readers: Mapping[str, Callable[[bytes], Any]], server: grpc.aio.Server
) -> None:
    """Have `servicer` answer all methods of `service`, each with its method of the same name.

    What generated code would do, but for stream methods that read and write by their context, and requests that are
    more than messages.

    Args:
        service: its description.
        servicer: what answers.
        readers: makes requests of the bytes that arrive, for methods that do not take the bare message.
        server: not started yet.
    """
    handlers = {
        method.name: _handler(method, getattr(servicer, method.name), readers.get(method.name))
        for method in service.methods
    }
    server.add_registered_method_handlers(service.full_name, handlers)


def _handler(method: MethodDescriptor, behavior: Any, reader: Callable[[bytes], Any] | None) -> Any:
    streams = method.client_streaming and method.server_streaming
    make = grpc.stream_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
    return make(
        behavior,
        request_deserializer=reader or GetMessageClass(method.input_type).FromString,
        response_serializer=GetMessageClass(method.output_type).SerializeToString,
    )
