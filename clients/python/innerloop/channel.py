"""Opening channels, in the clear or over TLS."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from innerloop.checks import check_unicode
from innerloop.errors import InvalidArgumentError

PemSource = str | Path | bytes
"""A PEM file's path, or its content."""

_BEGIN_PEM = b"-----BEGIN"

_THIS_MACHINE = re.compile(r"(localhost|127(\.\d+){3}|\[::1\])(:\d+)?")
_SCHEME = re.compile(r"(https?|grpcs?)://", re.IGNORECASE)
_HOST_AND_PORT = re.compile(r"(?P<host>\[[^\]]+\]|[^:/\[\]\s]+):(?P<port>\d{1,5})")
_NAME_OF_GRPC = re.compile(r"(dns|unix|unix-abstract|vsock|ipv4|ipv6|xds):\S+")

KEEPALIVE_SECONDS = 10
"""After so many seconds without a byte from the server, gRPC pings it. Load balancers and NATs forget idle connections
after minutes; our servers permit a ping every 5 seconds."""

KEEPALIVE_TIMEOUT_SECONDS = 10
"""After so many seconds without an answer to a ping, gRPC closes the connection. Both settings together are less than a
call's default timeout of 30 seconds, so that the call can still be tried again on a new connection."""

_OPTIONS = [
    # How large a request may be is the server's to say, and its operator's to change.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC waits a second and more before it connects again: too long for our own retries to find a restarted server.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),  # without limit
    # By default, channels to one server share a connection; a new channel shall not get an old connection that is dead.
    ("grpc.use_local_subchannel_pool", 1),
]


@dataclass(frozen=True)
class TLS:
    """How to talk to a server over TLS.

    Attributes:
        root_certificates: the authorities to trust; the system's when None.
        client_certificate: the certificate to show to servers that ask for one; needs `client_key`.
        client_key: the private key of `client_certificate`.
    """

    root_certificates: PemSource | None = None
    client_certificate: PemSource | None = None
    client_key: PemSource | None = None

    def __post_init__(self) -> None:
        if (self.client_certificate is None) != (self.client_key is None):
            raise InvalidArgumentError("client_certificate and client_key go together")

    def roots(self) -> bytes | None:
        """The authorities to trust, as PEM; None for the system's.

        Raises:
            InvalidArgumentError: the file can't be read, or holds something else.
        """
        return _read_pem(self.root_certificates, "root_certificates")

    def credentials(self) -> grpc.ChannelCredentials:
        """Credentials for a channel.

        Raises:
            InvalidArgumentError: a file can't be read, or holds something else.
        """
        return grpc.ssl_channel_credentials(
            root_certificates=self.roots(),
            private_key=_read_pem(self.client_key, "client_key"),
            certificate_chain=_read_pem(self.client_certificate, "client_certificate"),
        )


def check_target(target: str) -> str:
    """The address of a server.

    Args:
        target: "host:port", or a name in one of gRPC's own schemes such as "dns:///host:port" or "unix:/path".

    Raises:
        InvalidArgumentError: it is neither; the message says how to write it.

    Example:
        >>> check_target("localhost:50051")
        'localhost:50051'
        >>> check_target("http://localhost:50051")
        Traceback (most recent call last):
        innerloop.errors.InvalidArgumentError: 'http://localhost:50051' is no "host:port": leave out "http://"
    """
    if not isinstance(target, str):
        raise InvalidArgumentError(f'the server is named by a string, "host:port"; this is a {type(target).__name__}')
    check_unicode(target, f"the server's name {target!r}")
    if _NAME_OF_GRPC.fullmatch(target) and not _HOST_AND_PORT.fullmatch(target):
        return target
    found = _HOST_AND_PORT.fullmatch(target)
    if found is None or not 0 < int(found["port"]) < 2**16:
        raise InvalidArgumentError(f'{target!r} is no "host:port": {_what_to_do(target)}')
    return target


def is_this_machine(target: str) -> bool:
    """Whether what is sent to a server stays on this machine."""
    return bool(_THIS_MACHINE.fullmatch(target)) or target.startswith(("unix:", "unix-abstract:"))


def host_and_port(target: str) -> tuple[str, int] | None:
    """The two parts of "host:port"; None for a name in one of gRPC's schemes."""
    found = _HOST_AND_PORT.fullmatch(target)
    return (found["host"].strip("[]"), int(found["port"])) if found else None


def _what_to_do(target: str) -> str:
    if scheme := _SCHEME.match(target):
        tls = ", and set tls=True (--tls in the shell)" if scheme[1].lower() in ("https", "grpcs") else ""
        return f'leave out "{scheme[0]}"{tls}'
    if target.count(":") > 1 and "[" not in target:
        return 'write an IPv6 address as "[::1]:50051"'
    if "/" in target:
        return "leave out what follows the port"
    return 'name the host and the port, which is 50051 unless the server was given another: "localhost:50051"'


def make_credentials(tls: bool | TLS) -> grpc.ChannelCredentials | None:
    """Credentials for channels; None for those in the clear.

    Raises:
        InvalidArgumentError: a file of certificates or keys can't be used.
    """
    return (tls if isinstance(tls, TLS) else TLS()).credentials() if tls else None


def open_channel(target: str, credentials: grpc.ChannelCredentials | None) -> grpc.Channel:
    """A channel with a connection of its own; connects when first used."""
    if credentials is None:
        return grpc.insecure_channel(target, options=_options(target))
    return grpc.secure_channel(target, credentials, options=_options(target))


def open_async_channel(target: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    """The same for the running event loop."""
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=_options(target))
    return grpc.aio.secure_channel(target, credentials, options=_options(target))


def _options(target: str) -> list[tuple[str, Any]]:
    # gRPC sends even calls to localhost through http_proxy, which leads anywhere but to this machine.
    proxy = 0 if _THIS_MACHINE.fullmatch(target) else 1
    patience = int(KEEPALIVE_TIMEOUT_SECONDS * 1000)
    return [
        *_OPTIONS,
        ("grpc.enable_http_proxy", proxy),
        ("grpc.keepalive_time_ms", int(KEEPALIVE_SECONDS * 1000)),
        # gRPC does not ping while another ping of its own is open, and waits a minute for that one by default.
        ("grpc.keepalive_timeout_ms", patience),
        ("grpc.http2.ping_timeout_ms", patience),
    ]


def _read_pem(source: PemSource | None, name: str) -> bytes | None:
    if source is None:
        return None
    if isinstance(source, str) and _BEGIN_PEM.decode() in source:
        source = source.encode()
    try:
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
    except (OSError, TypeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidArgumentError(f"{name}: can't read {str(source)!r}: {reason}") from error
    if _BEGIN_PEM not in content:
        raise InvalidArgumentError(f'{name} holds no PEM, which begins with "{_BEGIN_PEM.decode()}"')
    return content
