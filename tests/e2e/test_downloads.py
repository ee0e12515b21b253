"""Adaptations that are taken home: what the folder answers without the server, and what is refused."""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import grpc
import numpy as np
import pytest
from bundles import GRADIENTS, PROTOTYPES, write_bundle, write_calibrated, write_encoded
from encoders import image_encoder
from examples import pictures
from onnx_bundles import write_onnx_models
from running import connect
from typer.testing import CliRunner
from wire import problem

from innerloop import AsyncClient, Client, FailedPreconditionError, InvalidArgumentError
from innerloop.v1 import adaptation_pb2 as pb
from innerloop_command.app import app
from innerloop_learner.bundle import load_bundle, save_bundle
from innerloop_learner.encoders import EncoderOptions, describe_encoder
from innerloop_learner.manifest import PREDICT
from innerloop_trainer.onnx_export.graphs import export_graphs

pytestmark = [pytest.mark.with_and_without_front_ends, pytest.mark.rarely("alone")]

RIDGE = replace(PROTOTYPES, method="r2d2", max_ways=5)
BY_ONNX = ("prototypes-onnx", "gradients-onnx", "curves", "moved")
"""Models that ONNX Runtime serves, all others being served by PyTorch."""

ALONE = """
import runpy, sys
for name in ("innerloop", "innerloop_learner", "torch", "safetensors", "onnx", "grpc", "google", "msgspec"):
    sys.modules[name] = None
import numpy
predict = runpy.run_path(sys.argv[1])["predict"]
numpy.save(sys.argv[3], predict(numpy.load(sys.argv[2])))
"""
"""Runs a downloaded script where there is nothing but NumPy and ONNX Runtime."""


def add_graphs(path):
    bundle = load_bundle(path)
    graphs, files = export_graphs(bundle)
    assert graphs.refused == ""
    save_bundle(path, replace(bundle.manifest, graphs=graphs), bundle.params, files)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Bundles with graphs, of which "prototypes" is calibrated, and those that can't be taken home."""
    folder = tmp_path_factory.mktemp("models")
    write_calibrated(folder / "prototypes", PROTOTYPES)
    write_bundle(folder / "gradients", GRADIENTS)
    write_bundle(folder / "ridge", RIDGE)
    for name in ("prototypes", "gradients", "ridge"):
        add_graphs(folder / name)
    for name in ("prototypes", "gradients"):
        shutil.copytree(folder / name, folder / f"{name}-onnx")
    write_onnx_models(folder)
    shutil.copytree(folder / "classes", folder / "moved")
    write_bundle(folder / "plain", PROTOTYPES)
    write_encoded(folder / "encoded", "protonet", describe_encoder(image_encoder(), None, EncoderOptions()))
    return folder


@pytest.fixture(scope="module")
def server(start_server, folder, tmp_path_factory):
    """A server that gives adaptations away, and keeps their examples."""
    store = f"sqlite:{tmp_path_factory.mktemp('store') / 'store'}"
    backends = ",".join(["torch", *(f"{name}=onnxruntime" for name in BY_ONNX)])
    with start_server(folder, downloads=True, backend=backends, store=store) as running:
        yield running


@pytest.fixture
def client(server):
    with Client(server.target) as client:
        yield client


def alone(folder, queries):
    """What a downloaded folder answers without the server."""
    np.save(folder / "queries.npy", queries)
    command = [sys.executable, "-c", ALONE, folder / "predict.py", folder / "queries.npy", folder / "answers.npy"]
    subprocess.run(command, check=True)
    return np.load(folder / "answers.npy")


MODELS_AND_WAYS = [
    ("prototypes", 3),
    ("prototypes", 7),
    ("prototypes-onnx", 4),
    ("gradients", 3),
    ("gradients-onnx", 5),
    ("ridge", 5),
]


@pytest.mark.parametrize(("model", "ways"), MODELS_AND_WAYS)
def test_a_downloaded_folder_gives_the_servers_probabilities(client, tmp_path, model, ways):
    labels = [f"ünïcode \u2603 {way}" for way in range(ways)]
    adaptation, queries = client.adapt(model, pictures(2 * ways), labels * 2), pictures(6, seed=1)
    adaptation.download(tmp_path / "home")
    served = np.array([[p.probabilities[label] for label in adaptation.classes] for p in adaptation.predict(queries)])
    np.testing.assert_allclose(alone(tmp_path / "home", queries), served, atol=1e-5)
    assert served.std(0).max() > 1e-4
    about = json.loads((tmp_path / "home" / "adaptation.json").read_text("utf-8"))
    assert (about["classes"], about["revision"]) == (labels, 1)
    assert (about["calibration"] is not None) == model.startswith("prototypes")
    assert adaptation.id not in json.dumps(about)


def test_a_downloaded_regression_gives_the_servers_values(client, tmp_path):
    x = np.linspace(-1, 1, 6, dtype=np.float32)[:, np.newaxis]
    adaptation = client.adapt("curves", x, targets=np.sin(x))
    adaptation.download(tmp_path / "home")
    served = np.array([p.value for p in adaptation.predict(x)]).reshape(6, 1)
    np.testing.assert_allclose(alone(tmp_path / "home", x.astype(np.float64)), served, atol=1e-5)


@pytest.mark.parametrize("forget", [False, True], ids=["adapted again", "learned without the examples before"])
def test_an_update_is_in_the_next_download(client, tmp_path, forget):
    adaptation = client.adapt("prototypes", pictures(4), list("baba"), forget_examples=forget)
    other = client.get_adaptation(adaptation.id)  # which has no examples to send
    other.add(pictures(2, seed=2), ["c", "a"])
    other.download(tmp_path / "home")
    about = json.loads((tmp_path / "home" / "adaptation.json").read_text())
    assert (about["revision"], about["classes"], about["support_size"]) == (2, ["a", "b", "c"], 6)
    served = np.array([[p.probabilities[label] for label in "abc"] for p in other.predict(pictures(3))])
    np.testing.assert_allclose(alone(tmp_path / "home", pictures(3)), served, atol=1e-5)


async def test_both_clients_and_the_shell_write_the_same_files(server, client, tmp_path):
    adaptation = client.adapt("prototypes", pictures(4), list("abab"))
    adaptation.download(tmp_path / "sync")
    async with AsyncClient(server.target) as other:
        await (await other.get_adaptation(adaptation.id)).download(str(tmp_path / "async"))
    result = CliRunner().invoke(
        app, ["download", adaptation.id, "--out", str(tmp_path / "shell"), "--server", server.target]
    )
    assert (result.exit_code, result.output.strip()) == (0, str(tmp_path / "shell" / "predict.py"))
    names = {"adaptation.json", "predict.onnx", "predict.py", "state.npz"}
    assert {each.name for each in tmp_path.iterdir()} == {"sync", "async", "shell"}
    for name in names - {"state.npz"}:  # whose archive carries times
        contents = {(tmp_path / each / name).read_bytes() for each in ("sync", "async", "shell")}
        assert len(contents) == 1
    assert {each.name for each in (tmp_path / "shell").iterdir()} == names
    np.save(tmp_path / "queries.npy", pictures(2))
    script = [sys.executable, tmp_path / "shell" / "predict.py", tmp_path / "queries.npy"]
    printed = subprocess.run(script, check=True, capture_output=True, text=True).stdout.splitlines()
    assert [line[:2] for line in printed] == [f"{p.label} " for p in adaptation.predict(pictures(2))]


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("plain", "innerloop export BUNDLE --out BUNDLE --onnx"),
        ("encoded", "stands behind an encoder"),
        ("refused", "go on asking the server"),
    ],
)
def test_what_can_not_answer_alone_is_refused_with_what_to_do(client, tmp_path, model, why):
    adaptation = client.adapt(model, pictures(4), list("abab"))
    with pytest.raises(FailedPreconditionError, match=why) as refused:
        adaptation.download(tmp_path / "home")
    assert refused.value.reason == "NOT_PORTABLE"
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_has_changed_on_disk_is_not_given_away_as_the_one_that_answers(client, folder, tmp_path):
    adaptation = client.adapt("moved", pictures(4), list("abab"))
    graph = folder / "moved" / PREDICT
    content = graph.read_bytes()
    try:
        for altered in (content[:-1] + b"?", content[:-1], content + b"?", None):
            graph.unlink() if altered is None else graph.write_bytes(altered)
            with pytest.raises(FailedPreconditionError, match="has changed on disk"):
                adaptation.download(tmp_path / "home")
            assert list(tmp_path.iterdir()) == []
    finally:
        graph.write_bytes(content)
    adaptation.download(tmp_path / "home")


def test_what_is_there_is_not_overwritten(client, tmp_path):
    adaptation = client.adapt("prototypes", pictures(4), list("abab"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("folder", "file", "link"):
        with pytest.raises(InvalidArgumentError, match="is there already"):
            adaptation.download(tmp_path / name)
    for path in (tmp_path / "file" / "home", tmp_path / "missing" / "home"):
        with pytest.raises(InvalidArgumentError, match="can't be written"):
            adaptation.download(path)
    for path in (None, 3, "home\0"):
        with pytest.raises(InvalidArgumentError, match="must name a folder"):
            adaptation.download(path)
    assert {each.name for each in tmp_path.iterdir()} == {"folder", "file", "link"}
    assert ((tmp_path / "file").read_text(), list((tmp_path / "folder").iterdir())) == ("mine", [])


def test_on_the_wire_files_come_in_small_chunks_with_their_digests(server, client):
    adaptation = client.adapt("prototypes", pictures(4), list("abab"))
    files = {}
    with connect(server) as wire:
        for message in wire.adaptations.DownloadAdaptation(pb.DownloadAdaptationRequest(adaptation_id=adaptation.id)):
            if message.WhichOneof("content") == "file":
                announced = message.file
                files[announced.name] = (announced, bytearray())
            else:
                assert 0 < len(message.chunk) <= 256 * 2**10
                files[announced.name][1].extend(message.chunk)
    assert [*files] == ["adaptation.json", "state.npz", "predict.onnx"]
    for announced, content in files.values():
        assert (announced.size_bytes, announced.digest) == (len(content), hashlib.sha256(content).digest())


HOSTILE = ["", "nobody's", "../../etc/passwd", "a" * 100_000, "\0", "☃"]


@pytest.mark.parametrize("adaptation_id", HOSTILE, ids=range(len(HOSTILE)))
def test_ids_that_are_none_are_not_found(server, adaptation_id):
    with connect(server) as wire, pytest.raises(grpc.RpcError) as failed:
        list(wire.adaptations.DownloadAdaptation(pb.DownloadAdaptationRequest(adaptation_id=adaptation_id)))
    assert problem(failed.value).reason == "ADAPTATION_NOT_FOUND"
