"""The model repository over real bundles and the real engine."""

import asyncio
import shutil
import threading

import pytest
from bundles import FIXED_WAYS, PROTOTYPES, write_bundle, write_models

from innerloop_server.domain.errors import (
    InvalidRequestError,
    ModelFailedError,
    ModelLoadingError,
    ModelNotFoundError,
    ModelRetiredError,
)
from innerloop_server.domain.model_versions import Alias, WantedAlias
from innerloop_server.domain.models import ModelState
from innerloop_server.engine.pytorch.engine import TorchEngine, TorchSettings
from innerloop_server.models.repository import ModelRepository
from innerloop_server.scheduling.lanes import Lanes


class Listener:
    def __init__(self):
        self.heard = []

    async def model_changed(self, model):
        self.heard.append((model.name, model.stable.state))

    async def model_removed(self, name):
        self.heard.append((name, "removed"))


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

    def hang(name, path, keys):
        if name == "gradients":
            released.wait()
        return load(name, path, keys)

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


async def test_a_model_that_is_unloaded_while_it_is_loaded_is_not_found(open_repository, folder, listener, monkeypatch):
    repository = open_repository(folder)

    async def unload_what_is_ready(model):
        if model.stable.state is ModelState.READY:
            await repository.unload(model.name)

    monkeypatch.setattr(listener, "model_changed", unload_what_is_ready)
    with pytest.raises(ModelNotFoundError):
        await repository.load("gradients")


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


@pytest.fixture
def versions(tmp_path):
    """A model of two versions."""
    for number in (1, 2):
        write_bundle(tmp_path / "models" / "signs" / str(number), PROTOTYPES, seed=number)
    return tmp_path / "models"


def digest(repository, reference, account=""):
    return repository.get(reference, account).description.digest


async def test_versions_lie_side_by_side_and_the_newest_that_loads_is_stable(open_repository, versions):
    write_bundle(versions / "signs" / "10", PROTOTYPES, seed=10)
    truncate(versions / "signs" / "10")
    repository = open_repository(versions)
    await repository.load_all()
    (model,) = repository.entries()
    assert [(entry.folder, entry.state) for entry in model.versions] == [
        ("1", ModelState.READY),
        ("2", ModelState.READY),
        ("10", ModelState.FAILED),
    ]
    first, second = model.versions[0].digest, model.versions[1].digest
    assert digest(repository, "signs") == digest(repository, "signs@stable") == digest(repository, "signs@2") == second
    assert digest(repository, "signs@1") == digest(repository, f"signs@{first[:8]}") == first
    assert repository.made_by("signs", first) is repository.get("signs@1")
    for nothing in ("signs@3", f"signs@{first[:7]}", "signs@canary", "signs@2@2", "other@1"):
        with pytest.raises(ModelNotFoundError):
            repository.get(nothing)
    with pytest.raises(ModelFailedError):
        repository.get("signs@10")
    with pytest.raises(ModelRetiredError):
        repository.made_by("signs", "0" * 64)


async def test_a_version_is_loaded_and_unloaded_by_itself(open_repository, versions):
    retired = []

    async def retire(model):
        retired.append(model)

    repository = open_repository(versions)
    repository.on_retired = retire
    await repository.load_all()
    newest = repository.get("signs")
    await repository.unload("signs@2")
    assert retired == [newest]
    assert not repository.serves(newest)
    assert digest(repository, "signs") == digest(repository, "signs@1")
    assert (await repository.load("signs@2")).description.digest == newest.description.digest
    await repository.unload("signs")
    assert not repository.entries()
    assert len(retired) == 3


async def test_a_bundle_that_replaces_another_serves_only_if_it_can(open_repository, folder, listener):
    repository = open_repository(folder)
    await repository.load_all()
    before, failures = repository.get("prototypes"), []
    repository.on_failure = failures.append
    heard = len(listener.heard)
    truncate(folder / "prototypes")
    with pytest.raises(ModelFailedError):
        await repository.load("prototypes")
    (entry,) = repository.versions("prototypes").versions
    assert (entry.state, repository.get("prototypes")) == (ModelState.READY, before)
    assert entry.error
    assert failures == ["prototypes"]
    write_bundle(folder / "prototypes", PROTOTYPES, seed=1)
    after = await repository.load("prototypes")
    assert after.description.digest != before.description.digest
    assert not repository.serves(before)
    assert not repository.versions("prototypes").versions[0].error
    assert {state for _, state in listener.heard[heard:]} == {ModelState.READY}, "it never stopped serving"


async def test_aliases_are_read_and_written_and_move_once_their_version_is_ready(open_repository, versions):
    file = versions / "signs" / "aliases.toml"
    file.write_text('# by hand\nstable = "1"\n')
    repository = open_repository(versions)
    await repository.load_all()
    assert digest(repository, "signs") == digest(repository, "signs@1") != digest(repository, "signs@2")
    write_bundle(versions / "signs" / "3", PROTOTYPES, seed=3)
    truncate(versions / "signs" / "3")
    with pytest.raises(ModelFailedError):
        await repository.load("signs")
    await repository.set_alias("signs", "stable", WantedAlias("3"))
    assert repository.versions("signs").alias("stable") == Alias("stable", "1", wanted="3")
    assert digest(repository, "signs") == digest(repository, "signs@1")
    write_bundle(versions / "signs" / "3", PROTOTYPES, seed=3)
    await repository.load("signs@3")
    assert digest(repository, "signs") == digest(repository, "signs@3")
    await repository.set_alias("signs", "canary", WantedAlias("2", 25.0))
    callers = [f"caller {number}" for number in range(200)]
    share = [each for each in callers if digest(repository, "signs", each) == digest(repository, "signs@2")]
    assert 30 < len(share) < 70
    await repository.set_alias("signs", "canary", WantedAlias("2", 50.0))
    assert all(digest(repository, "signs", each) == digest(repository, "signs@canary") for each in share)
    assert file.read_text() == 'canary = { version = "2", percent = 50.0 }\n# by hand\nstable = "3"\n'
    await repository.unload("signs@2")
    assert all(digest(repository, "signs", each) == digest(repository, "signs@3") for each in callers)
    await repository.set_alias("signs", "canary", None)
    assert repository.versions("signs").alias("canary") is None


async def test_aliases_that_make_no_sense_change_nothing(open_repository, versions):
    repository = open_repository(versions)
    await repository.load_all()
    file = versions / "signs" / "aliases.toml"
    for alias, wanted in (
        ("stable", WantedAlias("2", 5.0)),
        ("canary", WantedAlias("2", 101.0)),
        ("1", WantedAlias("2")),
    ):
        with pytest.raises(InvalidRequestError):
            await repository.set_alias("signs", alias, wanted)
    with pytest.raises(ModelNotFoundError):
        await repository.set_alias("signs", "stable", WantedAlias("7"))
    assert not file.exists()
    for content in (
        "stable = 1",
        "stable = [",
        "stable = " + "[" * 10_000,
        "stable = " + "1" * 10_000,
        'canary = { version = "1", share = 5 }',
        f'canary = {{ version = "1", percent = 1{"0" * 400} }}',
        '2 = "1"',
    ):
        file.write_text(content)
        await repository.look()
        assert digest(repository, "signs") == digest(repository, "signs@2")
    file.write_text('[stable]\nversion = "1"\n')
    with pytest.raises(InvalidRequestError, match="by hand"):
        await repository.set_alias("signs", "stable", WantedAlias("2"))
    await repository.look()
    assert digest(repository, "signs") == digest(repository, "signs@1")


async def test_a_look_that_fails_does_not_end_the_watch(open_repository, versions, monkeypatch):
    repository = open_repository(versions)
    await repository.load_all()
    look, looks = repository.look, 0

    async def fail_first():
        nonlocal looks
        looks += 1
        if looks == 1:
            raise LookupError
        await look()

    monkeypatch.setattr(repository, "look", fail_first)
    watching = asyncio.create_task(repository.watch(0.01))
    while looks < 3 and not watching.done():
        await asyncio.sleep(0.01)
    assert not watching.done()
    watching.cancel()


async def test_the_watch_follows_the_folder(open_repository, versions):
    repository = open_repository(versions)
    await repository.load_all()
    await repository.look()
    write_bundle(versions / "signs" / "3", PROTOTYPES, seed=3)
    (versions / "signs" / "aliases.toml").write_text('old = "1"')
    await repository.look()
    assert digest(repository, "signs@old") == digest(repository, "signs@1")
    with pytest.raises(ModelNotFoundError):  # it may be half written
        repository.get("signs@3")
    await repository.look()
    assert digest(repository, "signs") == digest(repository, "signs@3")
    await repository.unload("signs@3")
    shutil.rmtree(versions / "signs" / "1")
    await repository.look()
    await repository.look()
    (entry,) = repository.versions("signs").versions
    assert entry.folder == "2", "what was unloaded stays unloaded, and what is gone goes"
    shutil.move(versions / "signs", versions.parent / "elsewhere")
    for _ in range(3):
        await repository.look()
    assert repository.get("signs"), "an empty folder is a disk that is not there"


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
