"""What the server does for its callers, whoever of them leaves in the middle of it."""

import asyncio

import pytest
from bundles import write_models
from fakes import FakeState

from innerloop_server.adaptations.adaptation import Learned
from innerloop_server.adaptations.store import AdaptationStore
from innerloop_server.engine.lanes import Lanes
from innerloop_server.engine.torch_engine import TorchEngine, TorchSettings
from innerloop_server.errors import AdaptationEvictedError
from innerloop_server.models.repository import ModelRepository
from innerloop_server.serving.local import LocalServing


class SlowListener:
    """Takes for ever to hear that a model was removed."""

    async def model_changed(self, entry):
        pass

    async def model_removed(self, entry):  # noqa: ARG002
        await asyncio.Event().wait()


async def test_an_unload_whose_caller_leaves_still_drops_the_models_adaptations(tmp_path, metrics):
    thread = Lanes(1)
    repository = ModelRepository(write_models(tmp_path), TorchEngine(TorchSettings("cpu")), thread, [SlowListener()])
    await repository.load("prototypes")
    thread.stop(5)
    store = AdaptationStore(1000, metrics)
    kept = store.keep("me", Learned(repository.get("prototypes"), ("a", "b"), 2, 0, (), FakeState()), 60.0)
    unload = asyncio.create_task(LocalServing(repository, None, store, metrics).unload("prototypes"))
    await asyncio.sleep(0)
    assert not repository.serves(kept.learned.model)
    unload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await unload
    with pytest.raises(AdaptationEvictedError):
        store.look("me", kept.id)
