"""The model repository over real bundles and the real engine."""

import asyncio
import shutil
import threading

import pytest
from bundles import FIXED_WAYS, PROTOTYPES, write_bundle, write_models

from innerloop_server.domain.errors import ModelFailedError, ModelLoadingError, ModelNotFoundError
from innerloop_server.domain.models import ModelState
from innerloop_server.engine.pytorch.engine import TorchEngine, TorchSettings
from innerloop_server.models.repository import ModelRepository
from innerloop_server.scheduling.lanes import Lanes


class Listener:
    def __init__(self):
        self.heard = []

    async def model_changed(self, entry):
        self.heard.append((entry.name, entry.state))

    async def model_removed(self, entry):
        self.heard.append((entry.name, "removed"))


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
async def open_repository(listener):
    thread = Lanes(1)
    yield lambda folder: ModelRepository(folder, TorchEngine(TorchSettings("cpu")), thread.call, [listener])
    await thread.stop(5)


@pytest.fixture
def folder(tmp_path):
    return write_models(tmp_path / "models")


async def test_serves_every_bundle_of_a_folder_under_its_folders_name(open_repository, folder):
    repository = open_repository(folder)
    await repository.load_all()
    assert [entry.name for entry in repository.entries()] == ["gradients", "prototypes", "regression"]
    description = repository.get("gradients").description
    assert (description.method, description.traits.head_ways) == ("maml", FIXED_WAYS)
    assert description.traits.default_steps == 3


async def test_serves_a_folder_that_is_itself_a_bundle(open_repository, folder):
    repository = open_repository(folder / "prototypes")
    await repository.load_all()
    assert repository.get("prototypes").name == "prototypes"


async def test_follows_links_and_ignores_files_and_hidden_folders(open_repository, folder, tmp_path):
    shutil.move(folder / "gradients", tmp_path / "elsewhere")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / ".half-written").mkdir()
    (folder / "notes.txt").write_text("hello")
    repository = open_repository(folder)
    await repository.load_all()
    assert [entry.name for entry in repository.entries()] == ["linked", "prototypes", "regression"]


async def test_a_model_is_loading_before_it_is_ready(open_repository, folder, listener):
    repository = open_repository(folder)
    loading = asyncio.create_task(repository.load_all())
    while not repository.entries():
        await asyncio.sleep(0)
    with pytest.raises(ModelLoadingError) as refused:
        repository.get("gradients")
    assert refused.value.retry_after
    with pytest.raises(ModelLoadingError):
        await repository.unload("gradients")
    await loading
    repository.get("gradients")
    assert listener.heard.count(("gradients", ModelState.READY)) == 1


def truncate(bundle):
    file = bundle / "parameters.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def tamper(bundle):
    file = bundle / "manifest.json"
    file.write_text(file.read_text().replace('"seed": 0', '"seed": 1'))


def come_from_the_future(bundle):
    file = bundle / "manifest.json"
    file.write_text(file.read_text().replace('"format_version": 4', '"format_version": 99'))


def be_foreign(bundle):
    (bundle / "manifest.json").write_text("{}")


def be_empty(bundle):
    shutil.rmtree(bundle)
    bundle.mkdir()


@pytest.mark.parametrize("spoil", [truncate, tamper, come_from_the_future, be_foreign, be_empty])
async def test_a_bad_bundle_fails_with_a_reason_and_the_others_are_served(open_repository, folder, tmp_path, spoil):
    spoil(folder / "gradients")
    repository = open_repository(folder)
    await repository.load_all()
    repository.get("prototypes")
    with pytest.raises(ModelFailedError) as refused:
        repository.get("gradients")
    assert "gradients" in str(refused.value)
    assert str(tmp_path) not in str(refused.value)


async def test_a_bundle_that_hangs_is_given_up_and_the_others_are_served(folder, listener, monkeypatch):
    engine, lanes, released = TorchEngine(TorchSettings("cpu")), Lanes(1), threading.Event()
    load = engine.load

    def hang(name, path):
        if name == "gradients":
            released.wait()
        return load(name, path)

    monkeypatch.setattr(engine, "load", hang)
    repository = ModelRepository(folder, engine, lanes.call, [listener], load_seconds=0.5)
    await repository.load_all()
    released.set()
    repository.get("prototypes")
    with pytest.raises(ModelFailedError, match="gradients: reading it took longer"):
        repository.get("gradients")
    await lanes.stop(5)


async def test_a_bundle_that_was_mended_can_be_loaded_again(open_repository, folder):
    truncate(folder / "prototypes")
    repository = open_repository(folder)
    await repository.load_all()
    write_bundle(folder / "prototypes", PROTOTYPES)
    assert (await repository.load("prototypes")).name == "prototypes"


async def test_loading_a_loaded_model_changes_nothing(open_repository, folder):
    repository = open_repository(folder)
    await repository.load_all()
    model = repository.get("prototypes")
    assert await repository.load("prototypes") is model


async def test_concurrent_loads_of_one_model_are_one_load(open_repository, folder, listener):
    repository = open_repository(folder)
    first, second = await asyncio.gather(repository.load("prototypes"), repository.load("prototypes"))
    assert first is second
    assert len(listener.heard) == 2


async def test_an_unloaded_model_is_gone_until_it_is_loaded_again(open_repository, folder, listener):
    repository = open_repository(folder)
    await repository.load_all()
    model = repository.get("prototypes")
    await repository.unload("prototypes")
    assert listener.heard[-1] == ("prototypes", "removed")
    assert not repository.serves(model)
    with pytest.raises(ModelNotFoundError):
        repository.get("prototypes")
    assert await repository.load("prototypes") is not model


@pytest.mark.parametrize("name", ["", ".", "..", "../models/prototypes", "/etc", "prototypes/", "a" * 10_000, "\0"])
async def test_names_lead_nowhere_but_to_the_folders_own_bundles(open_repository, folder, name):
    repository = open_repository(folder)
    await repository.load_all()
    with pytest.raises(ModelNotFoundError):
        await repository.load(name)
    with pytest.raises(ModelNotFoundError):
        await repository.unload(name)


async def test_models_are_known_before_any_is_loaded(open_repository, folder):
    repository = open_repository(folder)
    await repository.announce()
    with pytest.raises(ModelLoadingError):
        repository.get("prototypes")
    with pytest.raises(ModelNotFoundError):
        repository.get("nothing")
    await repository.load_all()
    assert repository.get("prototypes").name == "prototypes"
