"""Adaptations outlive the server that made them."""

import shutil
import signal
import time
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
from bundles import GRADIENTS, write_bundle
from examples import adapt_request, pictures, predict_request
from forks import ServerProcess
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from running import Metrics, connect, wait_until
from wire import array, problem, support

from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1 import model_pb2
from innerloop_server.transport.grpc.health import STORE


def probabilities(client, adaptation):
    return array(client.adaptations.Predict(predict_request(adaptation.id)).predictions.probabilities)


def health(client, service):
    return HealthStub(client.channel).Check(HealthCheckRequest(service=service)).status


@contextmanager
def running(server):
    """A server that was launched before."""
    server.wait_until_ready()
    try:
        yield
    finally:
        server.stop()


def kill(server):
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()


def reason(call, request):
    with pytest.raises(grpc.RpcError) as failed:
        call(request)
    return problem(failed.value)


@pytest.fixture
def folder(models_folder, tmp_path):
    return shutil.copytree(models_folder, tmp_path / "models")


@pytest.mark.parametrize("frontends", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_after_a_crash_every_answered_adaptation_answers_as_before(folder, tmp_path, frontends):
    settings = {"threads": 1, "lanes": 1, "frontends": frontends, "store": f"sqlite:{tmp_path / 'store'}"}
    settings |= {"state_bytes": 4096, "admin": True}
    with ServerProcess(folder, **settings) as server, connect(server) as client:
        stored = client.adaptations.Adapt(adapt_request("prototypes", request_id="mine")).adaptation
        from_recipe = client.adaptations.Adapt(adapt_request("gradients")).adaptation
        deleted = client.adaptations.Adapt(adapt_request()).adaptation
        client.adaptations.DeleteAdaptation(pb.DeleteAdaptationRequest(adaptation_id=deleted.id))
        grow = pb.UpdateAdaptationRequest(
            adaptation_id=stored.id, add=support(pictures(1, seed=9), ["new"]), remove_examples=[0], request_id="grow"
        )
        grown = client.adaptations.UpdateAdaptation(grow)
        before = [probabilities(client, each) for each in (stored, from_recipe)]
        kill(server)
    with ServerProcess(folder, **settings) as server, connect(server) as client:
        np.testing.assert_array_equal(probabilities(client, stored), before[0])
        np.testing.assert_allclose(probabilities(client, from_recipe), before[1], atol=1e-5)
        assert client.adaptations.Adapt(adapt_request("prototypes", request_id="mine")).adaptation.id == stored.id
        again = client.adaptations.UpdateAdaptation(grow)
        assert (again.adaptation.revision, list(again.example_ids)) == (2, [3]) == (2, list(grown.example_ids))
        examples = client.adaptations.ListExamples(pb.ListExamplesRequest(adaptation_id=stored.id))
        assert list(examples.example_ids) == [1, 2, 3]
        assert reason(client.adaptations.Predict, predict_request(deleted.id)).reason == "ADAPTATION_NOT_FOUND"
        listed = client.adaptations.ListAdaptations(pb.ListAdaptationsRequest()).adaptations
        assert [each.id for each in listed] == [from_recipe.id, stored.id]
        metrics = Metrics(server.metrics_url)
        assert metrics("innerloop_adaptations_found_total", model="prototypes", tier="store") == 1
        assert metrics("innerloop_adaptations_found_total", model="gradients", tier="recipe") == 1
        wait_until(lambda: metrics("innerloop_store_records") == 2)
        _unload_and_load(client, stored, before[0])
        _replace_the_model(client, folder, from_recipe)


def _unload_and_load(client, adaptation, before):
    """Adaptations of an unloaded model wait for it."""
    client.models.UnloadModel(model_pb2.UnloadModelRequest(model="prototypes"))
    assert reason(client.adaptations.Predict, predict_request(adaptation.id)).reason == "MODEL_NOT_FOUND"
    client.models.LoadModel(model_pb2.LoadModelRequest(model="prototypes"))
    np.testing.assert_array_equal(probabilities(client, adaptation), before)


def _replace_the_model(client, folder, adaptation):
    """Adaptations of another version of a model are made again by this one, under their ids."""
    shutil.rmtree(folder / "gradients")
    write_bundle(folder / "gradients", GRADIENTS, seed=1)
    client.models.LoadModel(model_pb2.LoadModelRequest(model="gradients"))
    anew = client.adaptations.Adapt(adapt_request("gradients")).adaptation
    assert anew.model_version != adaptation.model_version
    np.testing.assert_allclose(probabilities(client, adaptation), probabilities(client, anew), atol=1e-5)
    kept = client.adaptations.GetAdaptation(pb.GetAdaptationRequest(adaptation_id=adaptation.id)).adaptation
    assert (kept.revision, kept.model_version) == (2, anew.model_version)


def test_replicas_share_a_store(folder, redis):
    settings = {"threads": 1, "lanes": 1, "store": redis.url}
    first, second = ServerProcess(folder, **settings), ServerProcess(folder, **settings, frontends=1)
    second.launch()
    with first, running(second), connect(first) as one, connect(second) as other:
        made = one.adaptations.Adapt(adapt_request(request_id="shared")).adaptation
        np.testing.assert_array_equal(probabilities(other, made), probabilities(one, made))
        assert other.adaptations.Adapt(adapt_request(request_id="shared")).adaptation.id == made.id
        other.adaptations.DeleteAdaptation(pb.DeleteAdaptationRequest(adaptation_id=made.id))
        assert reason(one.adaptations.Predict, predict_request(made.id)).reason == "ADAPTATION_NOT_FOUND"
        kept = one.adaptations.Adapt(adapt_request()).adaptation
        redis.kill()
        try:
            refused = reason(one.adaptations.Adapt, adapt_request())
            assert (refused.code, refused.reason) == (StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
            assert refused.retry_after
            assert probabilities(one, kept).shape == (4, 3)
            for client in (one, other):
                wait_until(lambda asked=client: health(asked, STORE) == HealthCheckResponse.NOT_SERVING)
                assert health(client, "") == HealthCheckResponse.SERVING
        finally:
            redis.start()
        wait_until(lambda: _adapts(one))
        wait_until(lambda: health(other, STORE) == HealthCheckResponse.SERVING)
        assert probabilities(other, kept).shape == (4, 3)


def _adapts(client):
    try:
        return bool(client.adaptations.Adapt(adapt_request()).adaptation.id)
    except grpc.RpcError:
        time.sleep(0.1)
        return False
