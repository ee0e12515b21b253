"""A server that asks for signatures: what operators and callers see of it."""

from bundles import PROTOTYPES, write_bundle
from examples import adapt_request
from grpc import StatusCode
from running import connect

from innerloop.v1 import model_pb2
from innerloop_learner.manifest import sign_bundle
from innerloop_learner.signatures import write_new_key


def test_a_server_serves_what_is_signed_and_says_why_not_the_rest(start_server, tmp_path, fails):
    key, folder = write_new_key(tmp_path / "key"), tmp_path / "models"
    for name in ("prototypes", "unsigned"):
        write_bundle(folder / name, PROTOTYPES)
    sign_bundle(folder / "prototypes", key)
    with start_server(folder, admin=True, require_signed=tmp_path / "key.pub") as server, connect(server) as client:
        states = {model.name: model for model in client.models.ListModels(model_pb2.ListModelsRequest()).models}
        assert states["prototypes"].state == model_pb2.MODEL_STATE_READY
        assert states["unsigned"].state == model_pb2.MODEL_STATE_FAILED
        assert states["unsigned"].error == "unsigned: is not signed; sign it with `innerloop sign`"
        assert client.adaptations.Adapt(adapt_request("prototypes"))
        load = model_pb2.LoadModelRequest(model="unsigned")
        problem = fails(client.models.LoadModel, load)
        assert (problem.code, problem.reason) == (StatusCode.FAILED_PRECONDITION, "MODEL_FAILED")
        assert "is not signed" in problem.message
        sign_bundle(folder / "unsigned", key)
        assert client.models.LoadModel(load).model.state == model_pb2.MODEL_STATE_READY
