"""Files of adaptations on a stream: whole, in chunks, and not for ever."""

import asyncio
import hashlib
import os
from types import SimpleNamespace
from unittest.mock import AsyncMock

import numpy as np
import pytest

from innerloop.v1 import adaptation_pb2 as pb
from innerloop_server.domain.callers import Caller
from innerloop_server.domain.deadline import Deadline
from innerloop_server.domain.errors import NotPortableError, OverloadedError
from innerloop_server.domain.portable import GraphFile, PortableAdaptation
from innerloop_server.transport.grpc import downloads
from innerloop_server.transport.grpc.adaptation_service import AdaptationServicer
from innerloop_server.transport.grpc.calls import Call
from innerloop_server.transport.grpc.downloads import CHUNK_BYTES, LEAST_RATE, MOST_AT_ONCE, UNREAD_SECONDS, send_files

CONTENT = np.random.default_rng(0).bytes(2 * CHUNK_BYTES + CHUNK_BYTES // 2)


class Reader:
    """A call whose client reads as many messages as it is told; what it got is in `files`."""

    def __init__(self, most=1000):
        self.files, self.most, self.largest = {}, most, 0

    async def write(self, message):
        if not self.most:
            await asyncio.Event().wait()
        self.most -= 1
        if message.WhichOneof("content") == "file":
            self.files[message.file.name] = b""
        else:
            self.largest = max(self.largest, len(message.chunk))
            self.files[[*self.files][-1]] += message.chunk


@pytest.fixture
def adaptation(tmp_path):
    (tmp_path / "graph").write_bytes(CONTENT)
    graph = GraphFile(str(tmp_path / "graph"), len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    return PortableAdaptation("model", b"{}", CONTENT[: CHUNK_BYTES + 1], graph)


async def test_files_come_whole_in_chunks(adaptation):
    reader = Reader()
    await send_files(adaptation, reader)
    assert reader.files == {
        "adaptation.json": b"{}",
        "state.npz": CONTENT[: CHUNK_BYTES + 1],
        "predict.onnx": CONTENT,
    }
    assert reader.largest == CHUNK_BYTES


@pytest.mark.parametrize("altered", [CONTENT[:-1], CONTENT + b"?", b"?" + CONTENT[1:], b""])
async def test_a_graph_that_has_changed_never_arrives_whole(adaptation, tmp_path, altered):
    (tmp_path / "graph").write_bytes(altered)
    reader = Reader()
    with pytest.raises(NotPortableError, match="changed on disk"):
        await send_files(adaptation, reader)
    assert len(reader.files["predict.onnx"]) < len(altered) or not altered


async def test_a_pipe_in_the_place_of_a_graph_holds_nothing_up(adaptation, tmp_path):
    (tmp_path / "graph").unlink()
    os.mkfifo(tmp_path / "graph")
    with pytest.raises(NotPortableError, match="changed on disk"):
        await asyncio.wait_for(send_files(adaptation, Reader()), 5)


async def test_a_client_that_reads_nothing_is_given_up(adaptation, monkeypatch):
    monkeypatch.setattr(downloads, "UNREAD_SECONDS", 0.01)
    for most in (0, 3, 6):
        with pytest.raises(OverloadedError, match="read too slowly"):
            await send_files(adaptation, Reader(most))


async def test_a_client_that_reads_a_little_now_and_then_is_given_up(adaptation, monkeypatch):
    seconds = [0.0]
    monkeypatch.setattr(downloads, "time", SimpleNamespace(monotonic=lambda: seconds[0]))

    class Slow(Reader):
        async def write(self, message):
            seconds[0] += len(message.chunk) / self.rate
            await super().write(message)

    reader = Slow()
    reader.rate = 1.01 * LEAST_RATE
    await send_files(adaptation, reader)
    assert reader.files["predict.onnx"] == CONTENT
    assert seconds[0] > UNREAD_SECONDS
    reader.rate = 0.5 * LEAST_RATE
    with pytest.raises(OverloadedError, match="read too slowly"):
        await send_files(adaptation, reader)


async def test_a_caller_that_has_many_downloads_under_way_waits_and_others_do_not(adaptation):
    serving = SimpleNamespace(download=AsyncMock(return_value=adaptation))
    servicer = AdaptationServicer(serving, None, None, None)
    request = pb.DownloadAdaptationRequest(adaptation_id="mine")

    def download(owner, reader):
        return servicer._download(reader, request, Call("", Caller(owner), Deadline()))

    held = [asyncio.create_task(download("me", Reader(3))) for _ in range(MOST_AT_ONCE)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match="under way already") as refused:
        await download("me", Reader())
    assert refused.value.retry_after
    others = Reader()
    await download("another", others)
    assert len(others.files) == 3
    for each in held:
        each.cancel()
    await asyncio.wait(held)
    await download("me", Reader())
    assert not servicer._downloads._under_way
