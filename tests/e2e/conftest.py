import json
import os
from contextlib import ExitStack

import grpc
import pytest
from bundles import PROTOTYPES, write_bundle, write_models, write_weighing
from forks import ServerProcess
from running import Metrics, connect
from wire import problem

from innerloop_learner.manifest import digest_of


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory):
    """Bundles "prototypes", "gradients", "regression" and "weighing"."""
    folder = write_models(tmp_path_factory.mktemp("models"))
    write_weighing(folder / "weighing")
    return folder


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "with_and_without_front_ends: its servers answer gRPC themselves, then through front ends"
    )
    config.addinivalue_line(
        "markers", "rarely(mode): of these two modes, the one in which a test is slow: 'alone' or 'front ends'"
    )


MODES = {"alone": 0, "front ends": 2}


def pytest_generate_tests(metafunc):
    definition = metafunc.definition
    if definition.get_closest_marker("with_and_without_front_ends"):
        if "frontends" not in metafunc.fixturenames:
            raise pytest.UsageError(f"{definition.nodeid} says that it runs with front ends, but asks for no server")
        rare = definition.get_closest_marker("rarely")
        modes = [
            pytest.param(count, id=mode, marks=pytest.mark.slow if rare and mode in rare.args else ())
            for mode, count in MODES.items()
        ]
        metafunc.parametrize("frontends", modes, indirect=True, scope="module")


@pytest.fixture(scope="module")
def frontends(request):
    """How many front ends servers have unless they say otherwise."""
    return getattr(request, "param", 0)


@pytest.fixture(scope="module")
def start_server(models_folder, frontends):
    """Starts a server process that computes one batch at a time; a context manager."""

    def start(models=models_folder, **settings):
        return ServerProcess(models, **{"threads": 1, "lanes": 1, "frontends": frontends, **settings})

    return start


WAITING = """
import time
from pathlib import Path

while not Path({go!r}).exists():
    time.sleep(0.01)
raise ValueError
"""


@pytest.fixture
def write_waiting_bundle(tmp_path_factory, monkeypatch):
    """Writes a bundle that servers started later read until the file exists that this returns; then it is refused.

    Its method is of another distribution, whose module waits when it is imported.
    """
    place = tmp_path_factory.mktemp("distribution")
    (place / "waiting.dist-info").mkdir()
    (place / "waiting.dist-info" / "METADATA").write_text("Name: waiting\nVersion: 1\n")
    (place / "waiting.dist-info" / "entry_points.txt").write_text("[innerloop.methods]\nwaiting = waiting:Waiting\n")
    (place / "waiting.py").write_text(WAITING.format(go=str(place / "go")))
    monkeypatch.setenv("PYTHONPATH", str(place), prepend=os.pathsep)

    def write(path):
        write_bundle(path, PROTOTYPES)
        data = json.loads((path / "manifest.json").read_text())
        data["learner"]["method"] = "waiting"
        data["digest"] = digest_of(data)
        (path / "manifest.json").write_text(json.dumps(data))
        return place / "go"

    return write


@pytest.fixture(scope="session")
def shared_servers(models_folder):
    """Gives the server with default settings and so many front ends, which is started when it is first asked for."""
    running = {}
    with ExitStack() as stack:

        def server(frontends):
            if frontends not in running:
                process = ServerProcess(models_folder, threads=1, lanes=1, frontends=frontends)
                running[frontends] = stack.enter_context(process)
            return running[frontends]

        yield server


@pytest.fixture(scope="module")
def server(shared_servers, frontends):
    """A server with default settings, which many modules share: tests compare its counts with those before."""
    return shared_servers(frontends)


@pytest.fixture
def client(server):
    with connect(server) as connection:
        yield connection


@pytest.fixture
def metrics(server):
    return Metrics(server.metrics_url)


@pytest.fixture
def fails():
    """Calls what must fail, and reads how."""

    def call(method, request, **keywords):
        with pytest.raises(grpc.RpcError) as refused:
            method(request, **keywords)
        return problem(refused.value)

    return call
