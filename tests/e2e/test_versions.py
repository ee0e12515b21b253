"""Versions of a model on a running server: one that fails changes nothing, and others carry adaptations along."""

import json
import signal
from functools import partial

import grpc
import numpy as np
import pytest
import trustme
from bundles import GRADIENTS, PROTOTYPES, write_bundle
from examples import adapt_request, pictures, predict_request
from forks import ServerProcess
from running import Metrics, connect, wait_until
from typer.testing import CliRunner
from wire import array, problem

from innerloop import TLS, Client, FailedPreconditionError, ModelRetiredError
from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1 import model_pb2
from innerloop_command.app import app


@pytest.fixture
def folder(tmp_path):
    write_bundle(tmp_path / "models" / "signs" / "1", PROTOTYPES, seed=1)
    return tmp_path / "models"


def probabilities(client, adaptation):
    return array(client.adaptations.Predict(predict_request(adaptation.id)).predictions.probabilities)


def truncate(bundle):
    file = bundle / "parameters.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize("frontends", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_an_upgrade_carries_adaptations_along_even_if_the_server_is_killed_in_the_middle(folder, tmp_path, frontends):
    settings = {"threads": 1, "lanes": 1, "admin": True, "store": f"sqlite:{tmp_path / 'store'}"}
    settings["frontends"] = frontends
    with ServerProcess(folder, **settings) as server, connect(server) as client:
        made = [client.adaptations.Adapt(adapt_request("signs", seed=seed)).adaptation for seed in range(60)]
        before = [probabilities(client, each) for each in made]
        _try_a_bad_version(client, server, folder, made[0])
        write_bundle(folder / "signs" / "2", GRADIENTS, seed=2)
        client.models.LoadModel(model_pb2.LoadModelRequest(model="signs@2"))
        anew = [client.adaptations.Adapt(adapt_request("signs", seed=seed)).adaptation for seed in range(60)]
        assert {each.model_version for each in anew}.isdisjoint(each.model_version for each in made)
        after = [probabilities(client, each) for each in anew]
        np.testing.assert_array_equal(probabilities(client, made[0]), before[0])
        migrating = model_pb2.MigrateAdaptationsRequest(model="signs")
        wait_until(lambda: client.models.MigrateAdaptations(migrating).migration.migrated > 5)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    with ServerProcess(folder, **settings) as server, connect(server) as client:
        for index, each in enumerate(made):
            answers = probabilities(client, each)
            assert any(np.allclose(answers, one[index], atol=1e-4) for one in (before, after))
        ran = CliRunner().invoke(app, ["migrate", "signs", "--server", server.target, "--json"])
        progress = json.loads(ran.stdout)
        assert (progress["state"], progress["failed"], progress["examined"]) == ("done", 0, 120)
        client.models.UnloadModel(model_pb2.UnloadModelRequest(model="signs@1"))
        for index, each in enumerate(made):
            np.testing.assert_allclose(probabilities(client, each), after[index], atol=1e-4)
        kept = client.adaptations.GetAdaptation(pb.GetAdaptationRequest(adaptation_id=made[0].id)).adaptation
        assert (kept.revision, kept.model_version) == (2, anew[0].model_version)


def _try_a_bad_version(client, server, folder, adaptation):
    """A version that can't be loaded, and a bundle that was damaged in its place, leave what serves as it is."""
    write_bundle(folder / "signs" / "1.1", PROTOTYPES, seed=3)
    truncate(folder / "signs" / "1.1")
    truncate(folder / "signs" / "1")
    for version in ("1", "1.1"):
        with pytest.raises(grpc.RpcError) as refused:
            client.models.LoadModel(model_pb2.LoadModelRequest(model=f"signs@{version}"))
        assert problem(refused.value).reason == "MODEL_FAILED"
    model = client.models.GetModel(model_pb2.GetModelRequest(model="signs")).model
    states = [(each.folder, each.state, bool(each.error)) for each in model.versions]
    assert states == [("1", model_pb2.MODEL_STATE_READY, True), ("1.1", model_pb2.MODEL_STATE_FAILED, True)]
    assert [(each.name, each.version) for each in model.aliases] == [("stable", "1")]
    assert Metrics(server.metrics_url)("innerloop_bundles_refused_total", model="signs") == 2
    assert "bundle refused" in server.log
    assert probabilities(client, adaptation).shape == (4, 3)
    write_bundle(folder / "signs" / "1", PROTOTYPES, seed=1)


def test_aliases_and_the_watch_choose_what_a_name_means(folder):
    write_bundle(folder / "signs" / "2", PROTOTYPES, seed=2)
    with (
        ServerProcess(folder, threads=1, lanes=1, admin=True, watch=0.1, store="memory") as server,
        Client(server.target) as client,
    ):
        first, second = (version.version for version in client.model("signs").versions)
        inputs, labels = pictures(3), ["a", "b", "c"]
        assert client.adapt("signs", inputs, labels).info.model_version == second
        assert client.set_alias("signs", "stable", "1").version == first
        assert client.adapt("signs", inputs, labels).info.model_version == first
        assert client.adapt("signs@2", inputs, labels).info.model_version == second
        of_version = partial(
            Metrics(server.metrics_url), "innerloop_version_requests_total", model="signs", status="OK"
        )
        wait_until(lambda: [of_version(version=version) for version in (first, second)] == [1, 2])
        (folder / "signs" / "aliases.toml").write_text('stable = "1"\ncanary = { version = "2", percent = 100 }\n')
        wait_until(lambda: client.model("signs").version == second)
        adaptation = client.adapt("signs", inputs, labels)
        write_bundle(folder / "signs" / "3", PROTOTYPES, seed=3)
        truncate(folder / "signs" / "3")
        wait_until(lambda: len(client.model("signs").versions) == 3)
        with pytest.raises(FailedPreconditionError):
            client.adapt("signs@3", inputs, labels)
        client.unload_model("signs@2")  # without a recipe, since the store is memory
        assert client.model("signs").version == first
        assert adaptation.predict(inputs).labels == labels, "the SDK has adapted again"
        assert adaptation.info.model_version == first


@pytest.mark.parametrize("frontends", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_who_still_has_the_examples_of_a_retired_version_adapts_again_without_noticing(folder, tmp_path, frontends):
    settings = {"threads": 1, "lanes": 1, "admin": True, "store": f"sqlite:{tmp_path / 'store'}"}
    inputs, labels = pictures(3), ["a", "b", "c"]
    with ServerProcess(folder, frontends=frontends, **settings) as server, Client(server.target) as client:
        asked, streamed, lost = [client.adapt("signs", inputs, labels, forget_examples=True) for _ in range(3)]
        write_bundle(folder / "signs" / "2", PROTOTYPES, seed=2)
        second = next(each.version for each in client.load_model("signs@2").versions if each.folder == "2")
        client.unload_model("signs@1")
        found = client.get_adaptation(lost.id)
        with pytest.raises(ModelRetiredError, match="adapt again") as refused:
            found.predict(inputs)
        assert refused.value.reason == "MODEL_RETIRED"
        before = asked.id, streamed.id
        assert asked.predict(inputs).labels == labels
        assert [answer.labels for answer in streamed.predict_stream([inputs, inputs])] == [labels, labels]
        assert {asked.info.model_version, streamed.info.model_version} == {second}
        assert {asked.id, streamed.id}.isdisjoint(before)


@pytest.mark.parametrize("frontends", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_each_owner_gets_the_canary_always_or_never(folder, tmp_path, frontends):
    write_bundle(folder / "signs" / "2", PROTOTYPES, seed=2)
    (folder / "signs" / "aliases.toml").write_text('stable = "1"\ncanary = { version = "2", percent = 50 }\n')
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    files = {"tls_certificate": "certificate.pem", "tls_key": "key.pem", "tls_client_ca": "ca.pem"}
    settings = {name: tmp_path / file for name, file in files.items()}
    got = []
    with ServerProcess(folder, threads=1, lanes=1, frontends=frontends, **settings) as server:
        for number in range(12):
            own = authority.issue_cert(
                f"{number}@example.org",
                common_name=f"owner {number}",
                organization_name="Example",
                organization_unit_name="Clients",  # else it is random, and so were the shares
            )
            tls = TLS(authority.cert_pem.bytes(), own.cert_chain_pems[0].bytes(), own.private_key_pem.bytes())
            versions = set()
            for _ in range(2):  # connections
                with Client(server.target, tls=tls) as client:
                    versions.add(client.model("signs").version)
                    versions |= {client.adapt("signs", pictures(2), ["a", "b"]).info.model_version for _ in range(2)}
            assert len(versions) == 1
            got += versions
    assert len(set(got)) == 2
    assert 1 < got.count(got[0]) < 11
