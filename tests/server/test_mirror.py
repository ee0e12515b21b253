"""The mirror of an object store: what it downloads, what it refuses, and what is served when the store is away."""

import asyncio
import errno
import json
import os
import shutil
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from types import SimpleNamespace

import pytest
from bundles import PROTOTYPES, write_bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from object_store import object_store
from structlog.testing import capture_logs

from innerloop_learner.manifest import read_files, read_manifest, sign_bundle
from innerloop_learner.signatures import write_new_key
from innerloop_server.domain.errors import (
    InvalidRequestError,
    ModelFailedError,
    ModelLoadingError,
    ModelNotFoundError,
)
from innerloop_server.domain.model_versions import WantedAlias
from innerloop_server.domain.models import ModelState
from innerloop_server.engine.pytorch.engine import TorchEngine, TorchSettings
from innerloop_server.make_mirror import make_mirror
from innerloop_server.models import mirror as mirrors
from innerloop_server.models.folder import find_models
from innerloop_server.models.mirror import Mirror
from innerloop_server.models.object_store import ObjectStore, ObjectStoreError, RemoteBundle, RemoteFile, shown
from innerloop_server.models.repository import ModelRepository
from innerloop_server.scheduling.lanes import Lanes
from innerloop_server.settings import ServerSettings

PLENTY = 2**30


@pytest.fixture(scope="module")
def s3():
    with object_store() as store:
        yield store


both_kinds = pytest.mark.parametrize("remote", ["file", "s3"], indirect=True)


@pytest.fixture
def remote(request, tmp_path):
    """A place for models that a URL leads to: `url`, and `put`, which brings it to what lies in `folder`."""
    folder = tmp_path / "remote"
    folder.mkdir()
    if getattr(request, "param", "file") == "file":
        return SimpleNamespace(folder=folder, url=f"file://{folder}", put=lambda: None)
    s3, place = request.getfixturevalue("s3"), tmp_path.name

    def put():
        if s3.system.exists(f"models/{place}"):
            s3.delete(place)
        s3.upload(folder, place)

    return SimpleNamespace(folder=folder, url=f"s3://models/{place}", put=put)


@pytest.fixture
def open_mirror(tmp_path):
    opened = []

    def open_one(url, most_bytes=PLENTY, folder=tmp_path / "cache"):
        mirror = Mirror(ObjectStore(url), folder, most_bytes)
        mirror.open()
        opened.append(mirror)
        return mirror

    yield open_one
    for mirror in opened:
        mirror.close()


def digests(mirror):
    """What is in a mirror: digests of its bundles by model and version. Every file of them is checked."""
    found = {}
    for name, model in find_models(mirror.models).items():
        for folder, bundle in model.bundles.items():
            manifest = read_manifest(bundle.path)
            read_files(bundle.path, manifest)
            found[f"{name}/{folder}".rstrip("/")] = manifest.digest
    return found


@both_kinds
async def test_a_mirror_follows_what_lies_in_the_store(remote, open_mirror):
    folder, mirror = remote.folder, open_mirror(remote.url)
    birds = write_bundle(folder / "birds", PROTOTYPES).digest
    versions = [write_bundle(folder / "signs" / str(number), PROTOTYPES, number).digest for number in (1, 2)]
    (folder / "signs" / "aliases.toml").write_text('stable = "1"\n')
    (folder / "birds" / "README.md").write_text("not of the bundle")
    (folder / "notes").mkdir()
    (folder / "notes" / "todo.txt").write_text("no model")
    remote.put()
    await mirror.refresh()
    assert digests(mirror) == {"birds": birds, "signs/1": versions[0], "signs/2": versions[1]}
    assert find_models(mirror.models)["signs"].aliases == 'stable = "1"\n'
    assert not (mirror.models / "birds" / "README.md").exists()
    before = find_models(mirror.models)

    await mirror.refresh()
    assert find_models(mirror.models) == before, "nothing is downloaded again"

    birds = write_bundle(folder / "birds", PROTOTYPES, seed=5).digest
    shutil.rmtree(folder / "signs" / "1")
    (folder / "signs" / "aliases.toml").unlink()
    remote.put()
    await mirror.refresh()
    assert digests(mirror) == {"birds": birds, "signs/2": versions[1]}
    assert find_models(mirror.models)["signs"].aliases == ""

    shutil.rmtree(folder / "birds")
    birds = write_bundle(folder / "birds" / "1", PROTOTYPES, seed=6).digest
    shutil.rmtree(folder / "signs")
    signs = write_bundle(folder / "signs", PROTOTYPES, seed=7).digest
    remote.put()
    await mirror.refresh()
    assert digests(mirror) == {"birds/1": birds, "signs": signs}, "bundles become folders of versions, and back"
    assert len(list((mirror.models.parent / "bundles").iterdir())) == 2, "what was replaced is gone from the disk"


@both_kinds
async def test_a_url_may_lead_to_a_bundle_itself(remote, open_mirror):
    digest = write_bundle(remote.folder / "birds", PROTOTYPES).digest
    remote.put()
    mirror = open_mirror(f"{remote.url}/birds/")
    await mirror.refresh()
    assert digests(mirror) == {"birds": digest}


async def test_a_bundle_appears_whole_or_not_at_all(remote, open_mirror):
    folder, mirror = remote.folder, open_mirror(remote.url)
    before = write_bundle(folder / "birds", PROTOTYPES).digest
    write_bundle(folder / "new", PROTOTYPES)
    parameters = folder / "new" / "parameters.safetensors"
    content = parameters.read_bytes()
    parameters.unlink()
    remote.put()
    await mirror.refresh()
    assert digests(mirror) == {"birds": before}
    after = write_bundle(folder / "birds", PROTOTYPES, seed=1)
    (folder / "birds" / "parameters.safetensors").write_bytes(content)  # still those of the bundle before
    remote.put()
    with capture_logs() as logs:
        await mirror.refresh()
        await mirror.refresh()
    assert digests(mirror) == {"birds": before}, "what serves goes on"
    reasons = {entry["bundle"]: entry["reason"] for entry in logs}
    assert reasons["birds"].startswith("parameters.safetensors is not the one that its manifest lists")
    assert len(logs) == 1, "a problem is told once"
    write_bundle(folder / "birds", PROTOTYPES, seed=1)
    parameters.write_bytes(content)
    remote.put()
    await mirror.refresh()
    assert digests(mirror)["birds"] == after.digest
    assert set(digests(mirror)) == {"birds", "new"}
    assert {path.name[0] for path in (mirror.models.parent / "bundles").iterdir()}.isdisjoint(".")


async def test_a_download_that_was_cut_short_leaves_nothing(open_mirror, tmp_path, monkeypatch):
    write_bundle(tmp_path / "remote" / "birds", PROTOTYPES)
    mirror = open_mirror(f"file://{tmp_path}/remote")
    read = ObjectStore.read

    def cut(self, file):
        if file.path.endswith("safetensors"):
            raise ObjectStoreError("ConnectionResetError")
        return read(self, file)

    with monkeypatch.context() as network:
        network.setattr(ObjectStore, "read", cut)
        await mirror.refresh()
    assert digests(mirror) == {}
    assert list((tmp_path / "cache" / "bundles").iterdir()) == []
    (tmp_path / "cache" / "bundles" / ".new-killed").mkdir()
    await mirror.refresh()
    assert set(digests(mirror)) == {"birds"}
    assert len(list((tmp_path / "cache" / "bundles").iterdir())) == 1


async def test_a_damaged_bundle_is_downloaded_once_and_again_only_after_a_while(open_mirror, tmp_path, monkeypatch):
    bundle = tmp_path / "remote" / "birds"
    write_bundle(bundle, PROTOTYPES)
    parameters, read, files = bundle / "parameters.safetensors", ObjectStore.read, []
    content = parameters.read_bytes()

    def behind(self, file):
        """What a copy says that has the listing already, but not yet the file."""
        files.append(file)
        return iter([bytes(file.size)]) if file.path.endswith("safetensors") else read(self, file)

    mirror = open_mirror(f"file://{tmp_path}/remote")
    with monkeypatch.context() as network:
        network.setattr(ObjectStore, "read", behind)
        for _ in range(3):
            assert ("birds", "") in await mirror.refresh()
    assert len(files) == 2
    assert ("birds", "") in await mirror.refresh()
    monkeypatch.setattr(mirrors, "monotonic", lambda: monotonic() + mirrors.REFUSED_SECONDS)
    assert await mirror.refresh() == {}
    assert (mirror.models / "birds" / parameters.name).read_bytes() == content


async def test_bytes_on_disk_are_bounded(open_mirror, tmp_path):
    remote = tmp_path / "remote"
    write_bundle(remote / "birds", PROTOTYPES)
    size = sum(file.stat().st_size for file in (remote / "birds").iterdir())
    mirror = open_mirror(f"file://{remote}", most_bytes=size + 100)
    await mirror.refresh()
    write_bundle(remote / "words", PROTOTYPES)
    with capture_logs() as logs:
        await mirror.refresh()
    assert set(digests(mirror)) == {"birds"}
    assert "raise model_cache_bytes" in logs[0]["reason"]
    shutil.rmtree(remote / "birds")
    await mirror.refresh()
    assert set(digests(mirror)) == {"words"}


async def test_an_object_that_grows_while_it_is_read_is_read_no_further(open_mirror, tmp_path, monkeypatch):
    write_bundle(tmp_path / "remote" / "birds", PROTOTYPES)
    mirror = open_mirror(f"file://{tmp_path}/remote")
    find = ObjectStore.find_models

    def find_and_grow(self):
        found = find(self)
        os.truncate(tmp_path / "remote" / "birds" / "parameters.safetensors", 2**33)
        return found

    monkeypatch.setattr(ObjectStore, "find_models", find_and_grow)
    with capture_logs() as logs:
        await mirror.refresh()
    assert logs[0]["reason"] == "parameters.safetensors changed while it was read"
    assert digests(mirror) == {}


@pytest.mark.parametrize("kind", ["pipe", "endless"])
async def test_what_is_no_file_holds_nothing_up(kind, open_mirror, tmp_path):
    write_bundle(tmp_path / "remote" / "birds", PROTOTYPES)
    write_bundle(tmp_path / "remote" / "words", PROTOTYPES)
    file = tmp_path / "remote" / "words" / "parameters.safetensors"
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero")
    mirror = open_mirror(f"file://{tmp_path}/remote")
    await mirror.refresh()
    assert set(digests(mirror)) == {"birds"}


async def test_names_in_a_store_lead_nowhere_but_into_the_mirror(s3, open_mirror, tmp_path):
    write_bundle(tmp_path / "bundle", PROTOTYPES)
    for place in ("..", "a@b", ".hidden", "deep/er/est", "/root", "good/..", "good/1"):
        s3.upload(tmp_path / "bundle", f"names/{place}")
    mirror = open_mirror("s3://models/names")
    await mirror.refresh()
    assert set(digests(mirror)) == {"good/1"}
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "cache"}


async def test_a_store_in_which_there_is_nothing_takes_nothing_away(remote, open_mirror):
    write_bundle(remote.folder / "birds", PROTOTYPES)
    remote.put()
    mirror = open_mirror(remote.url)
    await mirror.refresh()
    shutil.rmtree(remote.folder / "birds")
    remote.put()
    with capture_logs() as logs:
        await mirror.refresh()
    assert [entry["reason"] for entry in logs] == ["the store holds no bundles"]
    assert set(digests(mirror)) == {"birds"}


async def test_a_store_that_hangs_is_given_up_and_never_blocks_the_event_loop(open_mirror, tmp_path, monkeypatch):
    write_bundle(tmp_path / "remote" / "birds", PROTOTYPES)
    mirror, hang = open_mirror(f"file://{tmp_path}/remote"), asyncio.Event()
    await mirror.refresh()
    released = threading.Event()
    with monkeypatch.context() as network:
        network.setattr(mirrors, "LISTING_SECONDS", 0.2)
        network.setattr(ObjectStore, "find_models", lambda _: released.wait())
        beats = 0

        async def beat():
            nonlocal beats
            while not hang.is_set():
                await asyncio.sleep(0.01)
                beats += 1

        beating = asyncio.create_task(beat())
        with capture_logs() as logs:
            await mirror.refresh()
        hang.set()
        await beating
    released.set()
    assert beats > 5
    assert [entry["reason"] for entry in logs] == ["it took longer than 0.2 s"]
    assert set(digests(mirror)) == {"birds"}
    await mirror.refresh()


async def test_a_caller_that_leaves_does_not_end_a_download(open_mirror, tmp_path):
    write_bundle(tmp_path / "remote" / "birds", PROTOTYPES)
    mirror = open_mirror(f"file://{tmp_path}/remote")
    asking = asyncio.create_task(mirror.refresh())
    await asyncio.sleep(0)
    asking.cancel()
    await mirror.refresh()
    assert set(digests(mirror)) == {"birds"}


def test_bundles_of_which_a_store_says_the_same_are_told_apart():
    first, second = (
        RemoteBundle({"manifest.json": RemoteFile(f"models/{name}/manifest.json", 900, "2026-01-01 12:00:00")})
        for name in ("birds", "words")
    )
    assert first.key != second.key


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """Files of three bundles."""
    folder = tmp_path_factory.mktemp("contents")
    for seed in range(3):
        write_bundle(folder / str(seed), PROTOTYPES, seed)
    return [{file.name: file.read_bytes() for file in (folder / str(seed)).iterdir()} for seed in range(3)]


PLACES = st.sampled_from(["birds", "birds/1", "signs/1", "signs/2"])
CHANGES = st.one_of(
    st.tuples(st.just("write"), PLACES, st.integers(0, 2)),
    st.tuples(st.just("tear"), PLACES, st.integers(0, 2)),
    st.tuples(st.just("remove"), PLACES, st.just(0)),
    st.tuples(st.just("look"), st.just(""), st.sampled_from([0, 1, 2, 3, 4, 6, 9])),
    st.tuples(st.just("restart"), st.just(""), st.just(0)),
)


@settings(max_examples=25, deadline=None)
@given(changes=st.lists(CHANGES, min_size=3, max_size=12))
def test_whatever_happens_to_store_and_disk_only_whole_bundles_are_seen_and_in_the_end_all_of_them(changes, contents):
    with TemporaryDirectory() as folder, asyncio.Runner() as runner, pytest.MonkeyPatch.context() as disk:
        remote, sync, calls = Path(folder) / "remote", os.fsync, 0

        def start():
            started = Mirror(ObjectStore(f"file://{remote}"), Path(folder) / "cache", PLENTY)
            started.open()
            return started

        def look(failing=0):
            """Look at the store, while the disk is full from one write on."""

            def fail(descriptor):
                nonlocal calls
                calls += 1
                if failing and calls >= failing:
                    raise OSError(errno.ENOSPC, "No space left on device")
                sync(descriptor)

            nonlocal calls
            calls = 0
            disk.setattr(os, "fsync", fail)
            runner.run(mirror.refresh())

        mirror = start()
        for change, place, number in changes:
            if change == "look":
                look(number)
            elif change == "restart":
                mirror.close()
                mirror = start()
            else:
                shutil.rmtree(remote / place, ignore_errors=True)
                for name, content in contents[number].items() if change != "remove" else ():
                    (remote / place).mkdir(parents=True, exist_ok=True)
                    damaged = change == "tear" and name != "manifest.json"
                    (remote / place / name).write_bytes(content[:-1] if damaged else content)
            digests(mirror)
        for place in ("birds", "signs/2"):
            shutil.rmtree(remote / place, ignore_errors=True)
            (remote / place).mkdir(parents=True)
            for name, content in contents[2].items():
                (remote / place / name).write_bytes(content)
        look()
        seen = digests(mirror)
        assert seen["birds"] == seen["signs/2"] == json.loads(contents[2]["manifest.json"])["digest"]
        mirror.close()


def test_two_servers_do_not_use_one_folder(open_mirror, tmp_path):
    open_mirror(f"file://{tmp_path}")
    with pytest.raises(OSError, match="another server uses it"):
        open_mirror(f"file://{tmp_path}")


def test_each_store_has_a_folder_of_its_own_whatever_the_password(tmp_path):
    def folder(url):
        return make_mirror(ServerSettings(models=url, data_dir=tmp_path)).models

    urls = ("memory://a@account/x", "memory://b@account/x", "memory://account/x", "memory://a/x@1", "memory://b/x@1")
    assert len({folder(url) for url in urls}) == len(urls)
    assert folder("memory://me:old/@host/x?token=1") == folder("memory://me:new@host/x")


async def test_secrets_stay_out_of_logs(s3, open_mirror):  # noqa: ARG001 - its address
    assert shown("sftp://me:pass/w@rd@host/models?token=1") == "sftp://host/models"
    mirror = open_mirror("s3://access:very/secret@models/birds?versionId=hidden")
    with capture_logs() as logs:
        await mirror.refresh()
    assert logs
    assert not any(word in str(logs) for word in ("access", "very", "secret", "hidden"))
    with pytest.raises(ObjectStoreError) as refused:
        ObjectStore("nothing://me:secret@models")
    assert str(refused.value) == "nothing:// is no store that fsspec knows"


@pytest.fixture
async def open_repository(open_mirror):
    lane = Lanes(1)

    def open_one(url, keys_file=None):
        mirror = open_mirror(url)
        engine = TorchEngine(TorchSettings("cpu"))
        return ModelRepository(mirror.models, engine, lane.call, [], keys_file=keys_file, refresh=mirror.refresh)

    yield open_one
    await lane.stop(5)


@both_kinds
async def test_a_repository_serves_and_follows_a_store(remote, open_repository):
    folder = remote.folder
    write_bundle(folder / "signs" / "1", PROTOTYPES, seed=1)
    write_bundle(folder / "birds", PROTOTYPES)
    (folder / "signs" / "aliases.toml").write_text('old = "1"\n')
    remote.put()
    repository = open_repository(remote.url)
    await repository.load_all()
    first = repository.get("signs")
    assert repository.get("signs@old") is first
    with pytest.raises(InvalidRequestError, match=r"change aliases.toml there"):
        await repository.set_alias("signs", "stable", WantedAlias("1"))
    write_bundle(folder / "signs" / "2", PROTOTYPES, seed=2)
    write_bundle(folder / "birds", PROTOTYPES, seed=3)
    birds = repository.get("birds")
    remote.put()
    for _ in range(2):
        await repository.look()
    assert repository.get("signs") is not first is repository.get("signs@1")
    assert repository.get("birds") is not birds
    shutil.rmtree(folder / "birds")
    write_bundle(folder / "words", PROTOTYPES)
    remote.put()
    assert await repository.load("words")
    for _ in range(2):
        await repository.look()
    with pytest.raises(ModelNotFoundError):
        repository.get("birds")


async def test_a_bundle_that_can_not_be_downloaded_is_listed_with_the_reason(remote, open_repository):
    folder = remote.folder
    write_bundle(folder / "birds", PROTOTYPES)
    write_bundle(folder / "words", PROTOTYPES)
    before = (folder / "birds" / "parameters.safetensors").read_bytes()
    for name in ("birds", "words"):
        (folder / name / "parameters.safetensors").write_bytes(b"damaged")
    write_bundle(folder / "signs" / "1", PROTOTYPES)
    repository = open_repository(remote.url)
    await repository.load_all()
    assert repository.get("signs")
    why = r"birds: parameters\.safetensors is not the one that its manifest lists"
    with pytest.raises(ModelFailedError, match=why):
        repository.get("birds")
    with pytest.raises(ModelFailedError, match=why):
        await repository.load("birds")
    with pytest.raises(ModelNotFoundError):
        await repository.unload("birds")
    (folder / "birds" / "parameters.safetensors").write_bytes(before)
    serving = await repository.load("birds")
    (folder / "birds" / "parameters.safetensors").unlink()
    with pytest.raises(ModelFailedError, match=r"birds: parameters\.safetensors is missing"):
        await repository.load("birds")
    (entry,) = repository.versions("birds").versions
    assert (entry.state, repository.get("birds")) == (ModelState.READY, serving)
    assert entry.error == "birds: parameters.safetensors is missing; is it being uploaded?"
    (folder / "birds" / "parameters.safetensors").write_bytes(before)
    await repository.load("birds")
    assert not repository.versions("birds").versions[0].error
    shutil.rmtree(folder / "words")
    await repository.look()
    with pytest.raises(ModelNotFoundError):
        repository.get("words")


async def test_models_are_loading_while_they_are_downloaded(remote, open_repository, monkeypatch):
    for name in ("birds", "words"):
        write_bundle(remote.folder / name, PROTOTYPES)
    (remote.folder / "words" / "parameters.safetensors").unlink()
    read, began, go_on = ObjectStore.read, threading.Event(), threading.Event()

    def slowly(self, file):
        began.set()
        go_on.wait()
        return read(self, file)

    repository = open_repository(remote.url)
    await repository.announce()
    with pytest.raises(ModelNotFoundError):
        repository.get("birds")
    with monkeypatch.context() as network:
        network.setattr(ObjectStore, "read", slowly)
        loading = asyncio.create_task(repository.load_all())
        await asyncio.to_thread(began.wait)
        for name in ("birds", "words"):
            with pytest.raises(ModelLoadingError):
                repository.get(name)
        go_on.set()
        await loading
    assert repository.get("birds")
    with pytest.raises(ModelFailedError, match=r"words: parameters\.safetensors is missing"):
        repository.get("words")


async def test_what_is_gone_from_the_store_at_a_start_is_not_loading_for_good(open_mirror, remote):
    for name in ("birds", "words"):
        write_bundle(remote.folder / name, PROTOTYPES)
    mirror, lane = open_mirror(remote.url), Lanes(1)
    await mirror.refresh()
    shutil.rmtree(remote.folder / "birds")
    repository = ModelRepository(
        mirror.models, TorchEngine(TorchSettings("cpu")), lane.call, [], refresh=mirror.refresh
    )
    await repository.announce()
    await repository.load_all()
    assert [model.name for model in repository.entries()] == ["words"]
    await lane.stop(5)


async def test_versions_serve_until_a_bundle_in_their_place_is_there_as_a_whole(remote, open_repository):
    folder = remote.folder
    write_bundle(folder / "signs" / "1", PROTOTYPES)
    write_bundle(folder / "birds", PROTOTYPES)
    repository = open_repository(remote.url)
    await repository.load_all()
    serving = repository.get("signs")
    write_bundle(folder / "new", PROTOTYPES, seed=1)
    (folder / "new" / "manifest.json").rename(folder / "signs" / "manifest.json")
    for _ in range(3):
        await repository.look()
    assert repository.get("signs") is serving
    (folder / "new" / "parameters.safetensors").rename(folder / "signs" / "parameters.safetensors")
    for _ in range(3):
        await repository.look()
    assert [entry.folder for entry in repository.versions("signs").versions] == [""]
    assert repository.get("signs") is not serving


async def test_signatures_are_checked_of_what_was_downloaded(remote, open_repository, tmp_path):
    key = write_new_key(tmp_path / "key")
    for name in ("good", "unsigned"):
        write_bundle(remote.folder / name, PROTOTYPES)
    sign_bundle(remote.folder / "good", key)
    remote.put()
    repository = open_repository(remote.url, tmp_path / "key.pub")
    await repository.load_all()
    assert repository.get("good")
    with pytest.raises(ModelFailedError, match="is not signed"):
        await repository.load("unsigned")
    sign_bundle(remote.folder / "unsigned", key)
    remote.put()
    assert await repository.load("unsigned")


async def test_while_the_store_is_away_what_was_downloaded_before_is_served(open_mirror, tmp_path, monkeypatch):
    write_bundle(tmp_path / "remote" / "birds", PROTOTYPES)
    mirror = open_mirror(f"file://{tmp_path}/remote")
    await mirror.refresh()
    mirror.close()

    def away(_):
        raise ObjectStoreError("EndpointConnectionError")

    mirror, lane = open_mirror(f"file://{tmp_path}/remote"), Lanes(1)
    engine = TorchEngine(TorchSettings("cpu"))
    repository = ModelRepository(mirror.models, engine, lane.call, [], refresh=mirror.refresh)
    write_bundle(tmp_path / "remote" / "words", PROTOTYPES)
    with capture_logs() as logs, monkeypatch.context() as network:
        network.setattr(ObjectStore, "find_models", away)
        await repository.load_all()
        await repository.look()
    told = [entry for entry in logs if entry["log_level"] == "error"]
    assert [(entry["event"], entry["reason"]) for entry in told] == [
        ("models not looked up; serving what was downloaded before", "EndpointConnectionError")
    ]
    assert repository.get("birds")
    with pytest.raises(ModelNotFoundError):
        repository.get("words")
    for _ in range(2):
        await repository.look()
    assert repository.get("words")
    await lane.stop(5)
