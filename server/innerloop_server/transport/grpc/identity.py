"""Who is calling."""

from collections.abc import Awaitable, Callable, Iterable
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
Metadata = Iterable[tuple[str, str | bytes]] | None
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
            credential = _credential(context.invocation_metadata())
            if credential is not None:
                return await self._authenticator.caller(credential)
        if self._certificates is not None:
            return self._certificates.caller(b"".join(context.auth_context().get("x509_pem_cert", ())))
        if self._authenticator is not None:
            raise UnauthenticatedError
        return await anonymous(context)

    async def may_know(self, metadata: Metadata) -> bool:
        """Whether a call with these metadata may be one of a caller whom the server knows.

        A call without a credential may be, where the connection's certificate says whose it is.
        """
        credential = _credential(metadata)
        if self._authenticator is None or credential is None:
            return self._authenticator is None or self._certificates is not None
        return await self._authenticator.knows(credential)


async def anonymous(context: Context) -> Caller:
    """The caller of a server that asks nobody who they are.

    All adaptations belong to one owner then, and everybody may do what the settings allow. The device's time is shared
    by addresses: whoever opens many connections has one share, and so have all who call through one proxy.
    """
    return Caller(ANONYMOUS, _host(context.peer()), frozenset(Scope))


def _credential(metadata: Metadata) -> str | None:
    """The credential in the metadata of a call, if any; empty, which is nobody's, if they are of another form."""
    sent = [value for key, value in metadata or () if key == CREDENTIAL_KEY]
    if not sent:
        return None
    scheme, _, credential = str(sent[0]).partition(" ")
    return credential if len(sent) == 1 and scheme.lower() == "bearer" else ""


def _host(peer: str) -> str:
    """The address of gRPC's name for a peer, such as ipv4:127.0.0.1:50000, without the port.

    >>> _host("ipv4:127.0.0.1:50000"), _host("unix:")
    ('ipv4:127.0.0.1', 'unix')
    """
    return peer.rpartition(":")[0]
