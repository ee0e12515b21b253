"""The table that says which scope each RPC needs, and the gate that applies it."""

from collections.abc import Mapping
from enum import Enum

from innerloop_server.domain.callers import Caller, Scope
from innerloop_server.domain.errors import (
    AdminDisabledError,
    DownloadsDisabledError,
    NotAdminError,
    ScopeMissingError,
)
from innerloop_server.transport.grpc.identity import Context, Identify

STRANGER = Caller("", scopes=frozenset())
"""Stands for a caller who was not asked who they are, and may do nothing that needs a scope."""


class Access(Enum):
    """What is open to more callers than those of one scope."""

    ANYBODY = "whoever reaches the port"
    CALLERS = "whoever the server knows"


NEEDED: Mapping[str, Scope | Access] = {
    "Adapt": Scope.ADAPT,
    "AdaptPredict": Scope.ADAPT,
    "UpdateAdaptation": Scope.ADAPT,
    "DeleteAdaptation": Scope.ADAPT,
    "Predict": Scope.PREDICT,
    "StreamPredict": Scope.PREDICT,
    "GetAdaptation": Scope.PREDICT,
    "ListExamples": Scope.PREDICT,
    "DownloadAdaptation": Scope.PREDICT,
    "ListAdaptations": Scope.PREDICT,
    "ListModels": Access.CALLERS,
    "GetModel": Access.CALLERS,
    "LoadModel": Scope.ADMIN,
    "UnloadModel": Scope.ADMIN,
    "SetAlias": Scope.ADMIN,
    "MigrateAdaptations": Scope.ADMIN,
    "GetMigration": Scope.ADMIN,
    "ServerReflectionInfo": Access.CALLERS,
    # The health service is open to anybody, since load balancers ask it without a credential.
    "Check": Access.ANYBODY,
    "Watch": Access.ANYBODY,
    "List": Access.ANYBODY,
}
"""The scope, or the wider access, that each RPC needs, by its name. No two services have an RPC of the same name."""


class Gate:
    """Lets callers in.

    Args:
        identify: names callers.
        admin: whether the server allows RPCs of the scope of admins at all.
        downloads: whether it gives adaptations away.
    """

    def __init__(self, identify: Identify, *, admin: bool, downloads: bool) -> None:
        self._identify = identify
        self._admin = admin
        self._downloads = downloads

    async def admit(self, rpc: str, context: Context) -> Caller:
        """The caller of an RPC, if they may make it.

        Raises:
            UnauthenticatedError: the server doesn't know them.
            AdminDisabledError, DownloadsDisabledError: nobody may, on this server.
            NotAdminError: it is for admins.
            ScopeMissingError: it needs another scope.
        """
        needed = NEEDED[rpc]
        if needed is Access.ANYBODY:
            return STRANGER
        caller = await self._identify(context)
        if needed is Scope.ADMIN and not self._admin:
            raise AdminDisabledError
        if rpc == "DownloadAdaptation" and not self._downloads:
            raise DownloadsDisabledError
        if needed is Access.CALLERS or needed in caller.scopes:
            return caller
        raise NotAdminError if needed is Scope.ADMIN else ScopeMissingError(needed.value)
