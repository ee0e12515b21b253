"""Who is calling."""

from collections.abc import Callable
from typing import Any

import grpc

ANONYMOUS = "anonymous"

Context = grpc.aio.ServicerContext[Any, Any]
Identify = Callable[[Context], str]
"""Names the caller of an RPC; adaptations belong to that name."""


def anonymous(context: Context) -> str:
    """Everybody is the same caller: for servers that ask for no certificate."""
    del context
    return ANONYMOUS


def certificate_subject(context: Context) -> str:
    """The subject of the client's certificate, or its alternative names where it has no subject."""
    properties = context.auth_context()
    names = properties.get("x509_subject") or properties.get("x509_subject_alternative_name") or ()
    return ",".join(name.decode(errors="replace") for name in names)
