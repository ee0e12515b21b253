"""Opening channels, in the clear or over TLS."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

PemSource = str | Path | bytes
"""A PEM file's path, or its content."""

_THIS_MACHINE = re.compile(r"(localhost|127(\.\d+){3}|\[::1\])(:\d+)?")

_OPTIONS = [
    # How large a request may be is the server's to say, and its operator's to change.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC waits a second and more before it connects again: too long for our own retries to find a restarted server.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5000),
]


@dataclass(frozen=True)
class TLS:
    """How to talk to a server over TLS.

    Attributes:
        root_certificates: the authorities to trust; the system's when None.
        client_certificate: who we are, for servers that ask; needs `client_key`.
        client_key: private key of `client_certificate`.
    """

    root_certificates: PemSource | None = None
    client_certificate: PemSource | None = None
    client_key: PemSource | None = None

    def __post_init__(self) -> None:
        if (self.client_certificate is None) != (self.client_key is None):
            raise ValueError("client_certificate and client_key go together")

    def credentials(self) -> grpc.ChannelCredentials:
        """Credentials for a channel.

        Raises:
            OSError: a file can't be read.
        """
        return grpc.ssl_channel_credentials(
            root_certificates=_read_pem(self.root_certificates),
            private_key=_read_pem(self.client_key),
            certificate_chain=_read_pem(self.client_certificate),
        )


def open_channel(target: str, tls: bool | TLS) -> grpc.Channel:
    """A channel to "host:port"; connects when first used."""
    if not tls:
        return grpc.insecure_channel(target, options=_options(target))
    return grpc.secure_channel(target, _credentials(tls), options=_options(target))


def open_async_channel(target: str, tls: bool | TLS, *, own_connection: bool = False) -> grpc.aio.Channel:
    """The same for the running event loop.

    Args:
        target: "host:port".
        tls: whether and how to talk TLS.
        own_connection: share no connection with other channels to the same server, as channels do otherwise.
    """
    options = [*_options(target), ("grpc.use_local_subchannel_pool", int(own_connection))]
    if not tls:
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(target, _credentials(tls), options=options)


def _options(target: str) -> list[tuple[str, Any]]:
    # gRPC sends even calls to localhost through http_proxy, which leads anywhere but to this machine.
    return [*_OPTIONS, ("grpc.enable_http_proxy", 0 if _THIS_MACHINE.fullmatch(target) else 1)]


def _credentials(tls: bool | TLS) -> grpc.ChannelCredentials:
    return (tls if isinstance(tls, TLS) else TLS()).credentials()


def _read_pem(source: PemSource | None) -> bytes | None:
    return source if source is None or isinstance(source, bytes) else Path(source).read_bytes()
