import grpc
import pytest
from bundles import write_models
from running import Metrics, connect
from wire import problem

from innerloop_command.server_process import ServerProcess


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory):
    """Bundles "prototypes", "gradients" and "regression"."""
    return write_models(tmp_path_factory.mktemp("models"))


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "with_and_without_front_ends: its servers answer gRPC themselves, then through front ends"
    )


def pytest_generate_tests(metafunc):
    if "frontends" in metafunc.fixturenames and metafunc.definition.get_closest_marker("with_and_without_front_ends"):
        metafunc.parametrize("frontends", [0, 2], indirect=True, scope="module", ids=["alone", "front ends"])


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


@pytest.fixture(scope="module")
def server(start_server):
    """A server with default settings."""
    with start_server() as server:
        yield server


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
