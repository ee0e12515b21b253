"""The standard health and reflection services."""

import pytest
from bundles import PROTOTYPES, write_bundle
from grpc import RpcError, StatusCode
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from running import connect, starting, wait_until

from innerloop.v1.model_pb2 import LoadModelRequest

pytestmark = pytest.mark.with_and_without_front_ends

SERVICES = ("innerloop.v1.AdaptationService", "innerloop.v1.ModelService")
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


def health(client, service):
    return HealthStub(client.channel).Check(HealthCheckRequest(service=service)).status


@pytest.mark.parametrize("service", ["", *SERVICES, "innerloop.v1.models/prototypes"])
def test_server_services_and_models_serve(client, service):
    assert health(client, service) == SERVING


def test_nobody_knows_of_other_services(client):
    with pytest.raises(RpcError) as refused:
        health(client, "innerloop.v1.models/nothing")
    assert refused.value.code() is StatusCode.NOT_FOUND


def test_reflection_describes_the_services(client):
    database = ProtoReflectionDescriptorDatabase(client.channel)
    assert set(SERVICES) <= set(database.get_services())
    file = database.FindFileContainingSymbol("innerloop.v1.AdaptationService")
    assert [method.name for method in file.service[0].method][:3] == ["Adapt", "Predict", "AdaptPredict"]


@pytest.mark.rarely("alone")
def test_nothing_serves_before_the_models_are_loaded_and_nothing_when_all_were_refused(
    start_server, write_waiting_bundle, tmp_path
):
    go = write_waiting_bundle(tmp_path / "only")
    server = start_server(tmp_path)
    with starting(server), connect(server) as client:
        wait_until(lambda: health(client, "innerloop.v1.models/only") == NOT_SERVING)
        assert (health(client, ""), health(client, SERVICES[0])) == (NOT_SERVING, NOT_SERVING)
        assert health(client, SERVICES[1]) == SERVING, "models can be listed while they load"
        go.touch()
        server.wait_until_ready()
        assert (health(client, ""), health(client, "innerloop.v1.models/only")) == (NOT_SERVING, NOT_SERVING)


@pytest.mark.rarely("front ends")
def test_a_watcher_hears_that_the_server_stops(start_server, tmp_path):
    write_bundle(tmp_path / "prototypes", PROTOTYPES)
    with start_server(tmp_path, drain_seconds=0.3) as server, connect(server) as client:
        statuses = HealthStub(client.channel).Watch(HealthCheckRequest(service=""))
        assert next(statuses).status == SERVING
        server.process.terminate()
        assert next(statuses).status == NOT_SERVING
        assert health(client, "innerloop.v1.models/prototypes") == NOT_SERVING
        assert server.process.wait(20) == 0


@pytest.mark.rarely("front ends")
def test_a_server_whose_models_were_all_refused_serves_once_one_is_mended(start_server, tmp_path):
    (tmp_path / "prototypes").mkdir()
    with start_server(tmp_path, admin=True) as server, connect(server) as client:
        assert [health(client, service) for service in ("", SERVICES[0])] == [NOT_SERVING] * 2
        (tmp_path / "prototypes").rmdir()
        write_bundle(tmp_path / "prototypes", PROTOTYPES)
        client.models.LoadModel(LoadModelRequest(model="prototypes"))
        assert [health(client, service) for service in ("", SERVICES[0])] == [SERVING] * 2
