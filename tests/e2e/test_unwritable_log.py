"""A log that can't be written fails nothing else."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from examples import adapt_request
from running import connect, wait_until

from innerloop.v1 import model_pb2


def full_disk():
    return os.open("/dev/full", os.O_WRONLY)


def closed_pipe():
    read, write = os.pipe()
    os.close(read)
    return write


@contextmanager
def serving(models, ready, log):
    command = [sys.executable, "-m", "innerloop_server", "serve", "--models", models, "--ready-file", ready]
    command += [
        "--admin",
        "--port",
        "0",
        "--metrics-port",
        "0",
        "--lanes",
        "1",
        "--store",
        "memory",
        "--frontends",
        "1",
    ]
    command = [*map(str, command)]
    if log is None:
        command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command]
    process = subprocess.Popen(command, stderr=log)
    try:
        wait_until(lambda: process.poll() is not None or ready.exists())
        assert process.poll() is None, "the server did not start"
        yield SimpleNamespace(target=f"localhost:{json.loads(ready.read_text())['port']}", process=process)
        process.terminate()
        assert process.wait(20) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if log is not None:
            os.close(log)


@pytest.mark.parametrize(
    "log",
    [
        pytest.param(full_disk, id="full disk"),
        pytest.param(closed_pipe, id="closed pipe", marks=pytest.mark.slow),
        pytest.param(lambda: None, id="closed", marks=pytest.mark.slow),
    ],
)
def test_a_log_that_can_not_be_written_fails_nothing(models_folder, tmp_path, log):
    with serving(models_folder, tmp_path / "ready.json", log()) as server:
        with connect(server) as client:
            client.models.UnloadModel(model_pb2.UnloadModelRequest(model="prototypes"))
            client.models.LoadModel(model_pb2.LoadModelRequest(model="prototypes"))
            assert client.adaptations.Adapt(adapt_request()).adaptation.id
        (front_end,) = front_ends(server.process.pid)
        os.kill(front_end, signal.SIGKILL)
        wait_until(lambda: front_ends(server.process.pid) not in ([front_end], []))
        with connect(server) as client:
            assert client.adaptations.Adapt(adapt_request(), wait_for_ready=True, timeout=30).adaptation.id


def front_ends(pid):
    """Process ids of a server's front ends: with one lane there are no workers."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
