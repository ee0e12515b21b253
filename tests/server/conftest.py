import pytest
from fakes import RecordingModel, describe

from innerloop_server.adaptations.stores.sqlite import SqliteStore
from innerloop_server.observability.metrics import Metrics


@pytest.fixture
def fake_model():
    """Makes models that compute nothing."""
    return lambda name="fake", **changes: RecordingModel(describe(**changes), name)


@pytest.fixture
def metrics():
    return Metrics("test", 1000)


@pytest.fixture
def value(metrics):
    """Reads a metric."""
    return lambda name, **labels: metrics.registry.get_sample_value(name, labels)


@pytest.fixture
async def store(tmp_path):
    """A store in a file, quick since it waits for no disk."""
    kept = SqliteStore(tmp_path / "store.sqlite", synchronous=False)
    await kept.open()
    yield kept
    await kept.close()
