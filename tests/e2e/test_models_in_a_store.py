"""A server whose models come from an object store."""

import json

import pytest
from bundles import PROTOTYPES, write_bundle
from examples import adapt_request
from object_store import CREDENTIALS, object_store
from running import connect, wait_until

from innerloop.v1 import model_pb2


@pytest.fixture(scope="module")
def s3():
    with object_store() as store:
        yield store


def ready(client):
    listed = client.models.ListModels(model_pb2.ListModelsRequest()).models
    return {model.name: model.version for model in listed if model.state == model_pb2.MODEL_STATE_READY}


def events(server):
    return [json.loads(line) for line in server.log.splitlines()]


def test_a_server_serves_and_follows_models_in_a_store(s3, start_server, tmp_path):
    write_bundle(tmp_path / "models" / "prototypes", PROTOTYPES)
    s3.upload(tmp_path / "models", "first")
    with start_server(
        "s3://models/first", data_dir=tmp_path / "data", admin=True, watch=0.2, log_level="debug"
    ) as server:
        with connect(server) as client:
            assert client.adaptations.Adapt(adapt_request("prototypes"))
            before = ready(client)["prototypes"]
            write_bundle(tmp_path / "models" / "prototypes", PROTOTYPES, seed=1)
            write_bundle(tmp_path / "models" / "birds", PROTOTYPES)
            s3.upload(tmp_path / "models", "first")
            assert client.models.LoadModel(model_pb2.LoadModelRequest(model="birds"))
            wait_until(lambda: ready(client)["prototypes"] != before)
            s3.delete("first/birds")
            wait_until(lambda: set(ready(client)) == {"prototypes"})
        assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in server.log


@pytest.mark.slow  # the store's client library takes seconds to give up
def test_a_server_that_starts_while_the_store_is_away_serves_what_it_has_and_follows_later(start_server, tmp_path):
    settings = {"data_dir": tmp_path / "data", "watch": 0.2}
    write_bundle(tmp_path / "models" / "prototypes", PROTOTYPES)
    with object_store() as s3:
        s3.upload(tmp_path / "models", "second")
        with start_server("s3://models/second", **settings):
            pass
        s3.kill()
        with start_server("s3://models/second", **settings) as server, connect(server) as client:
            assert client.adaptations.Adapt(adapt_request("prototypes"))
            (told,) = [event for event in events(server) if event["level"] == "error"]
            assert told["event"] == "models not looked up; serving what was downloaded before"
            assert (told["store"], told["reason"]) == ("s3://models/second", "EndpointConnectionError")
            write_bundle(tmp_path / "models" / "birds", PROTOTYPES)
            s3.start()
            s3.upload(tmp_path / "models", "second")
            wait_until(lambda: set(ready(client)) == {"birds", "prototypes"})
