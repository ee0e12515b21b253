"""Downloads as both clients take them: all or nothing, and no file but those that belong to one."""

import asyncio
import hashlib

import grpc
import numpy as np
import pytest
from scripted_server import Failure, reason

import innerloop
from innerloop.v1 import adaptation_pb2 as pb

IMAGES = np.zeros((2, 1, 28, 28), np.uint8)
SHUTTING_DOWN = Failure(grpc.StatusCode.UNAVAILABLE, "bye", (reason("SHUTTING_DOWN"),))
FILES = {"adaptation.json": b"{}", "state.npz": b"12345", "predict.onnx": b""}


def begin(name, content, digest=None):
    announced = pb.PortableFile(name=name, size_bytes=len(content), digest=digest or hashlib.sha256(content).digest())
    return pb.DownloadAdaptationResponse(file=announced)


def chunk(content):
    return pb.DownloadAdaptationResponse(chunk=content)


def download(**files):
    return [
        message
        for name, content in {**FILES, **files}.items()
        for message in [
            begin(name, content),
            *(chunk(content[place : place + 2]) for place in range(0, len(content), 2)),
        ]
    ]


async def test_a_folder_is_there_with_all_files_and_a_script(client, server, tmp_path):
    adaptation = await client.adapt("grey", IMAGES, ["a", "b"])
    server.downloads = [download()]
    await adaptation.download(tmp_path / "home")
    assert [each.name for each in tmp_path.iterdir()] == ["home"]
    found = {each.name: each.read_bytes() for each in (tmp_path / "home").iterdir()}
    compile(found.pop("predict.py"), "predict.py", "exec")
    assert found == FILES


async def test_a_download_that_breaks_off_begins_anew(client, server, tmp_path):
    adaptation = await client.adapt("grey", IMAGES, ["a", "b"])
    server.downloads = [[*download()[:3], SHUTTING_DOWN], [SHUTTING_DOWN], download()]
    await adaptation.download(tmp_path / "home")
    assert (tmp_path / "home" / "state.npz").read_bytes() == FILES["state.npz"]
    assert [each.name for each in tmp_path.iterdir()] == ["home"]


BAD = {
    "nothing": [],
    "a file less": download()[:-1],
    "a file without its end": download()[:-2],
    "another digest": [*download()[:-1], begin("predict.onnx", b"", bytes(32))],
    "more than was announced": [*download(), chunk(b"?")],
    "a chunk of no file": [chunk(b"?"), *download()],
    "a file twice": [*download(), *download()],
    "a message of nothing": [pb.DownloadAdaptationResponse(), *download()],
    **{
        f"the name {name!r}": [*download(), begin(name, b"")]
        for name in ("", "predict.py", "../evil", "/tmp/evil", ".", "state.npz/x", "\0")
    },
}


@pytest.mark.parametrize("messages", BAD.values(), ids=BAD)
async def test_what_is_no_download_leaves_nothing_behind(client, server, tmp_path, messages):
    adaptation = await client.adapt("grey", IMAGES, ["a", "b"])
    server.downloads = [messages]
    with pytest.raises(innerloop.InternalError, match="the download is damaged"):
        await adaptation.download(tmp_path / "home")
    assert list(tmp_path.iterdir()) == []


async def test_a_download_that_takes_too_long_leaves_nothing_behind(client, server, tmp_path):
    adaptation = await client.adapt("grey", IMAGES, ["a", "b"])
    server.downloads = [download()]
    server.going.clear()
    with pytest.raises(innerloop.DeadlineExceededError):
        await adaptation.download(tmp_path / "home", timeout=0.3)
    server.going.set()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [None, 3, b"home", "home\0", "home\udcff\ud800", "", ".", "missing/home", "x" * 300])
async def test_a_path_that_can_be_no_new_folder_is_refused(client, server, tmp_path, monkeypatch, path):
    adaptation = await client.adapt("grey", IMAGES, ["a", "b"])
    server.downloads = [download()]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(innerloop.InvalidArgumentError, match=r"must name|is there already|can't be written"):
        await adaptation.download(path)
    assert list(tmp_path.iterdir()) == []


async def test_a_client_that_is_closed_meanwhile_leaves_nothing_behind(client, server, tmp_path):
    adaptation = await client.adapt("grey", IMAGES, ["a", "b"])
    server.downloads = [download()]
    server.going.clear()
    downloading = asyncio.create_task(adaptation.download(tmp_path / "home"))
    while not any(received.method == "DownloadAdaptation" for received in server.received):
        await asyncio.sleep(0.01)
    await client.close()
    with pytest.raises(innerloop.ClientClosedError):
        await downloading
    server.going.set()
    assert list(tmp_path.iterdir()) == []


async def test_a_folder_that_appears_meanwhile_is_not_overwritten(client, server, tmp_path, monkeypatch):
    adaptation = await client.adapt("grey", IMAGES, ["a", "b"])
    server.downloads = [download()]
    write_text = type(tmp_path).write_text

    def written_late(self, *arguments):
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "mine").touch()
        return write_text(self, *arguments)

    monkeypatch.setattr(type(tmp_path), "write_text", written_late)
    with pytest.raises(innerloop.InvalidArgumentError, match="is there by now"):
        await adaptation.download(tmp_path / "home")
    assert [each.name for each in (tmp_path / "home").iterdir()] == ["mine"]
    assert [each.name for each in tmp_path.iterdir()] == ["home"]
