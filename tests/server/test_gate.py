"""Every RPC stands in the table of scopes, and the gate applies it."""

import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from innerloop.v1 import adaptation_pb2, model_pb2
from innerloop_server.domain.callers import Caller, Scope
from innerloop_server.domain.errors import (
    AdminDisabledError,
    DownloadsDisabledError,
    NotAdminError,
    ScopeMissingError,
)
from innerloop_server.transport.grpc.gate import NEEDED, Access, Gate

FILES = (adaptation_pb2, model_pb2, health_pb2, reflection_pb2)
RPCS = [
    method.name for file in FILES for service in file.DESCRIPTOR.services_by_name.values() for method in service.methods
]


def test_every_rpc_has_an_entry():
    assert sorted(RPCS) == sorted(NEEDED)


def gate(*scopes, admin=True, downloads=True):
    async def identify(context):
        del context
        return Caller("me", scopes=frozenset(scopes))

    return Gate(identify, admin=admin, downloads=downloads)


@pytest.mark.parametrize("rpc", RPCS)
async def test_a_caller_needs_the_one_scope_that_the_rpc_is_for(rpc):
    needed = NEEDED[rpc]
    if isinstance(needed, Access):
        await gate().admit(rpc, None)
        return
    assert (await gate(needed).admit(rpc, None)).owner == "me"
    with pytest.raises((ScopeMissingError, NotAdminError), match=f"the scope {needed}"):
        await gate(*(scope for scope in Scope if scope is not needed)).admit(rpc, None)


async def test_an_admin_may_do_what_the_server_allows():
    with pytest.raises(AdminDisabledError, match="--admin"):
        await gate(*Scope, admin=False).admit("LoadModel", None)


async def test_a_server_gives_adaptations_away_only_if_its_operator_says_so():
    with pytest.raises(DownloadsDisabledError, match="--downloads"):
        await gate(*Scope, downloads=False).admit("DownloadAdaptation", None)
