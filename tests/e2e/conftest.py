import grpc
import pytest
from bundles import write_models
from running import Metrics, connect
from wire import problem

from innerloop_server.process import ServerProcess


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory):
    """Bundles "prototypes", "gradients" and "regression"."""
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def start_server(models_folder):
    """Starts a server process that computes one batch at a time; a context manager."""
    return lambda models=models_folder, **settings: ServerProcess(models, **{"threads": 1, "lanes": 1, **settings})


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
