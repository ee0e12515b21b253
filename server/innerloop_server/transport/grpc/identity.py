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
    """The one caller of a server that asks for no certificates."""
    del context
    return Caller(ANONYMOUS)


def certificate_subject(context: Context) -> Caller:
    """The subject of the client's certificate, or its alternative names where it has no subject."""
    properties = context.auth_context()
    names = properties.get("x509_subject") or properties.get("x509_subject_alternative_name") or ()
    return Caller(",".join(name.decode(errors="replace") for name in names))
