"""The gRPC server: its port, its credentials, its services."""

from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import aio as aio_reflection

from innerloop.v1 import adaptation_pb2, model_pb2
from innerloop_server.settings import ConfigurationError, ServerSettings
from innerloop_server.transport.codec.requests import RequestLimits, limited_readers
from innerloop_server.transport.grpc.adaptation_service import AdaptationServicer
from innerloop_server.transport.grpc.credentials import tls_files
from innerloop_server.transport.grpc.gate import Gate
from innerloop_server.transport.grpc.health import ADAPTATION_SERVICE, MODEL_SERVICE, Health
from innerloop_server.transport.grpc.model_service import ModelServicer
from innerloop_server.transport.grpc.registration import add_service
from innerloop_server.transport.grpc.standard_services import add_standard_service
from innerloop_server.transport.grpc.waiting_calls import waiting_options

KEEPALIVE_SECONDS = 60
"""How long nothing may be heard from a client before it is asked for a sign of life: its calls and streams end when it
is gone, instead of when the kernel gives it up after hours."""

KEEPALIVE_TIMEOUT_SECONDS = 20
"""How long that sign may take."""

MIN_PING_SECONDS = 5
"""How often a client may ask for one. Ours asks every 10 seconds; gRPC's own default of 5 minutes would end its
connection."""


def keepalive_options() -> list[tuple[str, int]]:
    """How a server finds out that a client is gone, and lets clients find out that it is."""
    patience = int(KEEPALIVE_TIMEOUT_SECONDS * 1000)
    return [
        ("grpc.keepalive_time_ms", int(KEEPALIVE_SECONDS * 1000)),
        # Both, because gRPC counts its other pings as signs of life asked for, and waits a minute for them.
        ("grpc.keepalive_timeout_ms", patience),
        ("grpc.http2.ping_timeout_ms", patience),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", int(MIN_PING_SECONDS * 1000)),
    ]


def build_server(
    settings: ServerSettings,
    limits: RequestLimits,
    adaptations: AdaptationServicer,
    models: ModelServicer,
    health: Health,
    gate: Gate,
    interceptors: Sequence[grpc.aio.ServerInterceptor],
    *,
    share_port: bool,
) -> tuple[grpc.aio.Server, int]:
    """A gRPC server bound to its port, not started yet.

    Args:
        settings: of the server.
        limits: of requests.
        adaptations: one of its services.
        models: another.
        health: and the standard one.
        gate: lets callers of the standard services in.
        interceptors: of calls, before their requests are read.
        share_port: whether other processes may listen on the same port, each taking a share of the connections.

    Returns:
        the server and the port it is bound to.

    Raises:
        ConfigurationError: the port is taken or the address is not of this machine, or the TLS files are unusable.
    """
    options: list[tuple[str, Any]] = [
        # gRPC shares ports by default: a second server would silently take half of the requests.
        ("grpc.so_reuseport", int(share_port)),
        ("grpc.max_receive_message_length", int(settings.max_message_bytes)),
        ("grpc.max_send_message_length", -1),
        *keepalive_options(),
        *waiting_options(),
    ]
    server = grpc.aio.server(interceptors=interceptors, options=options)
    services = adaptation_pb2.DESCRIPTOR.services_by_name
    add_service(services["AdaptationService"], adaptations, limited_readers(limits), server)
    add_service(model_pb2.DESCRIPTOR.services_by_name["ModelService"], models, {}, server)
    standard = (
        health_pb2.DESCRIPTOR.services_by_name["Health"],
        reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
    )
    names = (ADAPTATION_SERVICE, MODEL_SERVICE, *(service.full_name for service in standard))
    for service, servicer in zip(standard, (health.servicer, aio_reflection.ReflectionServicer(names)), strict=True):
        add_standard_service(service, servicer, gate, server)
    return server, _bind(server, settings)


def _bind(server: grpc.aio.Server, settings: ServerSettings) -> int:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"{host}:{settings.port}"
    files = tls_files(settings)
    try:
        if files is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, files.credentials())
    except RuntimeError as error:
        raise ConfigurationError(f"port: can't listen on {address}: it is taken or not of this machine") from error
