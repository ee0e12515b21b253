"""Servers that compute by ONNX Runtime, alone or beside PyTorch."""

import os
import shutil

import numpy as np
import pytest
from bundles import FIXED_WAYS, write_models
from examples import pictures
from forks import ServerProcess
from onnx_bundles import class_logits, line_values, write_onnx_models
from running import Metrics

from innerloop import Client, ExamplesNotKeptError, FailedPreconditionError

WITHOUT_PYTORCH = "import sys\nsys.modules.update(torch=None, safetensors=None, onnx=None)\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Bundles "classes" and "curves" with graphs, "refused" and "prototypes" without."""
    folder = write_onnx_models(tmp_path_factory.mktemp("models"))
    write_models(folder)
    shutil.rmtree(folder / "regression")
    return folder


@pytest.fixture(scope="module")
def without_pytorch(tmp_path_factory):
    """A folder that keeps Python processes which have it on their path from importing PyTorch."""
    folder = tmp_path_factory.mktemp("no_pytorch")
    (folder / "sitecustomize.py").write_text(WITHOUT_PYTORCH)
    return folder


@pytest.fixture(
    scope="module", params=[{"backend": "onnxruntime"}, {"lanes": 2, "frontends": 1}], ids=["asked for", "auto"]
)
def server(request, folder, without_pytorch):
    """Servers without PyTorch: told to do without, and left to find out by themselves, with a front end."""
    server = ServerProcess(folder, **{"threads": 1, "lanes": 1, **request.param})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{without_pytorch}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        server.__enter__()
    yield server
    server.stop()


@pytest.fixture
def client(server):
    with Client(server.target, timeout=20) as client:
        yield client


def asked_about_classes(client):
    """Answers to a task of the "classes" graphs, and what they should be."""
    support, labels, queries = pictures(8, seed=1), np.tile(np.arange(4), 2), pictures(5, seed=2)
    with client.adapt("classes", support, [f"class {label}" for label in labels]) as adaptation:
        answers = adaptation.predict(queries)
    return answers, class_logits(support, labels, 4, queries)


def test_a_server_without_pytorch_answers_as_the_graphs_do(client):
    answers, logits = asked_about_classes(client)
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    expected = exponents / exponents.sum(1, keepdims=True)
    for answer, row in zip(answers, expected, strict=True):
        assert answer.label == f"class {row.argmax()}"
        np.testing.assert_allclose(list(answer.probabilities.values()), row, atol=1e-4)


def test_models_of_graphs_learn_more_from_all_examples_alone(client):
    support, labels, queries = pictures(8, seed=1), np.tile(np.arange(4), 2), pictures(5, seed=2)
    names = [f"class {label}" for label in labels]
    adaptation = client.adapt("classes", support[:3], names[:3])
    adaptation.add(support[3:], names[3:])
    best = class_logits(support, labels, 4, queries).argmax(1)
    assert adaptation.predict(queries).labels == [f"class {label}" for label in best]
    assert not client.model("classes").extends
    with pytest.raises(ExamplesNotKeptError):  # this server keeps none, and this handle of the client neither
        client.get_adaptation(adaptation.id).add(support[:1], names[:1])


def test_losses_of_each_step_come_back(client):
    x = np.linspace(-1, 1, 6, dtype=np.float32)[:, None]
    adaptation = client.adapt("curves", x, targets=np.sin(x), steps=3)
    values, losses = line_values(x, np.sin(x), 3, x[:2])
    np.testing.assert_allclose(adaptation.support_losses, losses, rtol=1e-4)
    np.testing.assert_allclose([answer.value for answer in adaptation.predict(x[:2])], values[:, 0], rtol=1e-4)


def test_models_without_graphs_fail_and_say_why(client):
    for name, words in (("prototypes", "innerloop export prototypes"), ("refused", "its memory has no end")):
        with pytest.raises(FailedPreconditionError, match=words):
            client.adapt(name, pictures(2), ["one", "other"])


def test_memory_of_states_is_reported(client, server):
    metrics = Metrics(server.metrics_url)
    adaptation = client.adapt("classes", pictures(2), ["one", "other"])
    assert metrics("innerloop_device_memory_bytes", device="cpu", kind="states") >= 2 * 6 * 4
    assert metrics("innerloop_device_memory_bytes", device="cpu", kind="resident") > 0
    assert metrics("innerloop_adaptations_held", model="classes") >= 1
    adaptation.delete()


def test_one_server_computes_each_model_by_its_own_backend(folder):
    backend = "torch, classes=onnxruntime"
    with ServerProcess(folder, threads=1, lanes=2, backend=backend) as server, Client(server.target) as client:
        answers, logits = asked_about_classes(client)
        assert [answer.label for answer in answers] == [f"class {best}" for best in logits.argmax(1)]
        support, labels = pictures(FIXED_WAYS), list(range(FIXED_WAYS))
        for name in ("prototypes", "gradients"):
            assert len(client.adapt(name, support, labels).predict(support)) == FIXED_WAYS
        both = Metrics(server.metrics_url)("innerloop_device_memory_bytes", device="cpu", kind="states")
        assert both > 1024 + FIXED_WAYS * 6 * 4
