"""Who is calling."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from innerloop_server.domain.callers import Caller, Scope
from innerloop_server.domain.errors import UnauthenticatedError
from innerloop_server.identity.authenticator import Authenticator
from innerloop_server.identity.certificates import Certificates

ANONYMOUS = "anonymous"

CREDENTIAL_KEY = "authorization"
"""Metadata that carries a credential, after the word Bearer (RFC 6750)."""

Context = grpc.aio.ServicerContext[Any, Any]
Identify = Callable[[Context], Awaitable[Caller]]
"""Says who makes an RPC; raises UnauthenticatedError where nobody may who is not known."""


class Identity:
    """Names the callers of a server.

    Args:
        certificates: where the server asks for client certificates.
        authenticator: where it takes credentials. What a call carries goes before its connection's certificate.
    """

    def __init__(self, certificates: Certificates | None, authenticator: Authenticator | None) -> None:
        self._certificates = certificates
        self._authenticator = authenticator

    async def caller(self, context: Context) -> Caller:
        """The caller of an RPC.

        Raises:
            UnauthenticatedError: a credential is wrong, or there is none where one is needed.
        """
        if self._authenticator is not None:
            sent = [value for key, value in context.invocation_metadata() or () if key == CREDENTIAL_KEY]
            if sent:
                return await self._authenticator.caller(_credential(sent))
        if self._certificates is not None:
            return self._certificates.caller(b"".join(context.auth_context().get("x509_pem_cert", ())))
        if self._authenticator is not None:
            raise UnauthenticatedError
        return await anonymous(context)


async def anonymous(context: Context) -> Caller:
    """The caller of a server that asks nobody who they are.

    All adaptations belong to one owner then, and everybody may do what the settings allow. The device's time is shared
    by addresses: whoever opens many connections has one share, and so have all who call through one proxy.
    """
    return Caller(ANONYMOUS, _host(context.peer()), frozenset(Scope))


def _credential(sent: list[str | bytes]) -> str:
    """The credential in the metadata of a call; empty if they are of another form, which is nobody's credential."""
    scheme, _, credential = str(sent[0]).partition(" ")
    return credential if len(sent) == 1 and scheme.lower() == "bearer" else ""


def _host(peer: str) -> str:
    """The address of gRPC's name for a peer, such as ipv4:127.0.0.1:50000, without the port.

    >>> _host("ipv4:127.0.0.1:50000"), _host("unix:")
    ('ipv4:127.0.0.1', 'unix')
    """
    return peer.rpartition(":")[0]
