"""ModelService: what there is, what is refused, and loading and unloading while others are served."""

import shutil

import pytest
from bundles import FIXED_WAYS, IMAGE, MAX_WAYS, PROTOTYPES, write_bundle, write_models
from examples import adapt_request, lasting_request, picture_support, pictures, predict_request
from grpc import StatusCode
from running import Metrics, connect, starting, wait_until
from wire import inputs

from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1 import model_pb2
from innerloop.v1.tensor_pb2 import DATA_TYPE_FLOAT32, DATA_TYPE_UINT8

pytestmark = [pytest.mark.with_and_without_front_ends, pytest.mark.rarely("alone")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, frontends):  # noqa: ARG001 - a folder for each
    """Good bundles beside a truncated one and a folder that is no bundle."""
    folder = write_models(tmp_path_factory.mktemp("models"))
    write_bundle(folder / "truncated", PROTOTYPES)
    file = folder / "truncated" / "parameters.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    (folder / "foreign").mkdir()
    return folder


@pytest.fixture(scope="module")
def server(start_server, folder):
    with start_server(folder, admin=True) as server:
        yield server


def load(client, name):
    return client.models.LoadModel(model_pb2.LoadModelRequest(model=name)).model


def unload(client, name):
    client.models.UnloadModel(model_pb2.UnloadModelRequest(model=name))


def get(client, name):
    return client.models.GetModel(model_pb2.GetModelRequest(model=name)).model


def test_models_describe_themselves(client):
    images, curves = get(client, "gradients"), get(client, "regression")
    assert (images.method, images.state) == ("maml", model_pb2.MODEL_STATE_READY)
    assert images.task_kind == model_pb2.TASK_KIND_CLASSIFICATION
    assert (tuple(images.input_shape), images.input_data_type) == (IMAGE, DATA_TYPE_UINT8)
    assert (images.limits.max_ways, images.limits.trained_ways, images.limits.max_steps) == (FIXED_WAYS, 5, 100_000)
    assert images.limits.max_support > 0 < images.limits.max_query
    assert len(images.digest) == 64
    assert images.digest.startswith(images.version)
    assert images.metrics[0].protocol == "inductive, 5-way 1-shot, untrained"
    assert curves.task_kind == model_pb2.TASK_KIND_REGRESSION
    assert (curves.target_size, curves.input_data_type) == (1, DATA_TYPE_FLOAT32)
    prototypes = get(client, "prototypes")
    assert prototypes.limits.max_ways == MAX_WAYS
    assert images.ways_can_change == model_pb2.WAYS_CHANGE_FEWER
    assert prototypes.ways_can_change == model_pb2.WAYS_CHANGE_ANY
    assert (images.gradients_at_serving, prototypes.gradients_at_serving) == (True, False)
    assert not images.order_matters


def test_bad_bundles_are_listed_with_the_reason_while_the_others_serve(client, server, folder, fails):
    listed = client.models.ListModels(model_pb2.ListModelsRequest()).models
    failed = {model.name: model.error for model in listed if model.state == model_pb2.MODEL_STATE_FAILED}
    assert [model.name for model in listed] == ["foreign", "gradients", "prototypes", "regression", "truncated"]
    assert set(failed) == {"foreign", "truncated"}
    assert "truncated or altered" in failed["truncated"]
    assert "not a bundle" in failed["foreign"]
    assert not any(str(folder) in error for error in failed.values())
    assert failed["truncated"] in server.log
    problem = fails(client.adaptations.Adapt, adapt_request("truncated"))
    assert (problem.code, problem.reason) == (StatusCode.FAILED_PRECONDITION, "MODEL_FAILED")
    assert client.adaptations.Adapt(adapt_request())


def test_a_bundle_put_into_the_folder_later_can_be_loaded(client, folder):
    write_bundle(folder / "later", PROTOTYPES, seed=1)
    assert load(client, "later").state == model_pb2.MODEL_STATE_READY
    assert client.adaptations.Adapt(adapt_request("later"))


def test_loading_what_is_not_there_or_not_right_says_so(client, fails):
    for name in ("missing", "../models", "/etc"):
        problem = fails(client.models.LoadModel, model_pb2.LoadModelRequest(model=name))
        assert (problem.code, problem.reason) == (StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    problem = fails(client.models.LoadModel, model_pb2.LoadModelRequest(model="truncated"))
    assert (problem.code, problem.reason) == (StatusCode.FAILED_PRECONDITION, "MODEL_FAILED")


def test_unloading_drops_the_models_adaptations_and_loading_brings_it_back(client, folder, fails):
    write_bundle(folder / "passing", PROTOTYPES)
    load(client, "passing")
    adaptation = client.adaptations.Adapt(adapt_request("passing")).adaptation
    unload(client, "passing")
    assert fails(client.adaptations.Adapt, adapt_request("passing")).reason == "MODEL_NOT_FOUND"
    assert fails(client.adaptations.Predict, predict_request(adaptation.id)).reason == "ADAPTATION_EVICTED"
    assert fails(client.models.UnloadModel, model_pb2.UnloadModelRequest(model="passing")).reason == "MODEL_NOT_FOUND"
    load(client, "passing")
    assert client.adaptations.Adapt(adapt_request("passing"))


def test_requests_under_way_when_their_model_is_unloaded_get_an_answer(client, folder, fails, metrics):
    shutil.copytree(folder / "gradients", folder / "leaving")
    load(client, "leaving")
    keeping, passing = lasting_request(500), pb.AdaptPredictRequest()
    passing.support.CopyFrom(picture_support())
    passing.query.CopyFrom(inputs(pictures(2)))
    keeping.model = passing.model = "leaving"
    kept = client.adaptations.Adapt.future(keeping)
    wait_until(lambda: metrics("innerloop_queue_depth", model="leaving", operation="adapt") == 0)
    passed = client.adaptations.AdaptPredict.future(passing)
    wait_until(lambda: metrics("innerloop_queue_depth", model="leaving", operation="adapt") == 1)
    unload(client, "leaving")
    assert passed.result().predictions.classes
    assert fails(lambda _: kept.result(), None).reason == "MODEL_NOT_FOUND"
    assert metrics("innerloop_adaptations_held", model="leaving") == 0


@pytest.mark.rarely("alone")
def test_a_model_still_loading_asks_for_patience_and_the_others_serve(
    start_server, write_waiting_bundle, tmp_path, fails
):
    folder = tmp_path / "models"
    write_bundle(folder / "prototypes", PROTOTYPES)
    go = write_waiting_bundle(folder / "slow")
    server = start_server(folder)
    with starting(server), connect(server) as client:
        wait_until(lambda: get(client, "prototypes").state == model_pb2.MODEL_STATE_READY)
        problem = fails(client.adaptations.Adapt, adapt_request("slow"))
        assert (problem.code, problem.reason) == (StatusCode.FAILED_PRECONDITION, "MODEL_LOADING")
        assert problem.retry_after > 0
        assert get(client, "slow").state == model_pb2.MODEL_STATE_LOADING
        assert client.adaptations.Adapt(adapt_request())
        assert not server.has_logged("ready"), "the server is not ready while a model is loading"
        go.touch()
        server.wait_until_ready()
        assert get(client, "slow").state == model_pb2.MODEL_STATE_FAILED
        samples = Metrics(server.metrics_url).samples("innerloop_model_info")
        assert {(sample.labels["model"], sample.labels["state"]) for sample in samples} == {
            ("prototypes", "ready"),
            ("slow", "failed"),
        }
