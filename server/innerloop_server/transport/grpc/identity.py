"""Who is calling."""

from collections.abc import Callable
from typing import Any

import grpc

from innerloop_server.domain.callers import Caller

ANONYMOUS = "anonymous"

Context = grpc.aio.ServicerContext[Any, Any]
Identify = Callable[[Context], Caller]
"""Says who makes an RPC."""


def anonymous(context: Context) -> Caller:
    """The caller of a server that asks for no certificates.

    All adaptations belong to one owner then. The device's time is shared by addresses: whoever opens many connections
    has one share, and so have all who call through one proxy.
    """
    return Caller(ANONYMOUS, _host(context.peer()))


def certificate_subject(context: Context) -> Caller:
    """The subject of the client's certificate, or its alternative names where it has no subject."""
    properties = context.auth_context()
    names = properties.get("x509_subject") or properties.get("x509_subject_alternative_name") or ()
    return Caller(",".join(name.decode(errors="replace") for name in names))


def _host(peer: str) -> str:
    """The address of gRPC's name for a peer, such as ipv4:127.0.0.1:50000, without the port.

    >>> _host("ipv4:127.0.0.1:50000"), _host("unix:")
    ('ipv4:127.0.0.1', 'unix')
    """
    return peer.rpartition(":")[0]
