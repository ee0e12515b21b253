"""An environment that holds what `innerloop[onnx-server]` installs, and nothing else."""

import os
import subprocess
import venv
from pathlib import Path

import numpy as np
import pytest
from examples import pictures
from onnx_bundles import class_logits, write_onnx_models

from innerloop import Client
from innerloop_command.server_process import ServerProcess

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def clean_python(tmp_path):
    """The interpreter of a new environment."""
    venv.create(tmp_path / "environment", with_pip=True)
    python = tmp_path / "environment" / "bin" / "python"
    environment = {**os.environ, "PIP_CONSTRAINT": "constraints.txt", "PIP_BUILD_CONSTRAINT": "constraints.txt"}
    environment.pop("PYTHONPATH", None)
    command = [python, "-m", "pip", "install", "--quiet", ".[onnx-server]"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=500)
    return python


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_onnx_server_serves_where_pytorch_is_not_installed(clean_python, tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    listed = subprocess.run([clean_python, "-m", "pip", "list"], capture_output=True, text=True, check=True).stdout
    assert "onnxruntime" in listed
    assert not {"torch", "safetensors", "onnx"} & {line.split()[0] for line in listed.splitlines()}
    models = write_onnx_models(tmp_path / "models")
    support, labels, queries = pictures(4, seed=1), [0, 1, 2, 3], pictures(5, seed=2)
    with (
        ServerProcess(models, python=str(clean_python), lanes=2) as server,
        Client(server.target, timeout=20) as client,
    ):
        answers = client.adapt("classes", support, labels).predict(queries)
    expected = class_logits(support, np.array(labels), 4, queries).argmax(1)
    assert [answer.label for answer in answers] == expected.tolist()
