"""DownloadAdaptation: files on a stream, a chunk at a time, so that no graph is ever in memory as a whole."""

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from innerloop.v1 import adaptation_pb2 as pb
from innerloop_learner.regular_file import open_regular_file
from innerloop_server.domain.errors import NotPortableError, OverloadedError
from innerloop_server.domain.portable import GraphFile, PortableAdaptation
from innerloop_server.transport.grpc.identity import Context

DESCRIPTION, STATE, GRAPH = "adaptation.json", "state.npz", "predict.onnx"
"""Names of the files."""

CHUNK_BYTES = 256 * 2**10
"""Most bytes of a file in one message: clients of gRPC take 4 MiB unless they are told otherwise."""

UNREAD_SECONDS = 10.0
"""Seconds in which a client must take a chunk. Otherwise its download ends, so that it holds neither a task state nor
the stop of the server for longer."""

LEAST_RATE = 64 * 2**10
"""Bytes that a client must take in each second on average, after the first UNREAD_SECONDS: one that takes a little now
and then would hold a task state for hours."""

MOST_AT_ONCE = 8
"""Most downloads of one caller at a time: each holds a task state in memory for as long as its client takes."""

RETRY_SECONDS = 1.0


class Downloads:
    """Counts the downloads that are under way."""

    def __init__(self) -> None:
        self._under_way: Counter[str] = Counter()

    @contextmanager
    def one_more(self, account: str) -> Iterator[None]:
        """Count a download of an account inside. Raises OverloadedError: it has as many as it may have."""
        if self._under_way[account] >= MOST_AT_ONCE:
            raise OverloadedError(RETRY_SECONDS, f"you have {MOST_AT_ONCE} downloads under way already")
        self._under_way[account] += 1
        try:
            yield
        finally:
            self._under_way[account] -= 1
            self._under_way += Counter()  # forgets accounts that have none


async def send_files(adaptation: PortableAdaptation, context: Context) -> None:
    """Send all files of an adaptation.

    Raises:
        NotPortableError: the graph is not on disk any more as it was when the model was loaded.
        OverloadedError: the client takes nothing, or too little.
    """
    stream = _Stream(context)
    for name, content in ((DESCRIPTION, adaptation.description), (STATE, adaptation.state)):
        await stream.write(_begin(name, len(content), hashlib.sha256(content).digest()))
        for start in range(0, len(content), CHUNK_BYTES):
            await stream.write(pb.DownloadAdaptationResponse(chunk=content[start : start + CHUNK_BYTES]))
    graph = adaptation.graph
    await stream.write(_begin(GRAPH, graph.size, bytes.fromhex(graph.digest)))
    async for chunk in _chunks_of(graph):
        await stream.write(pb.DownloadAdaptationResponse(chunk=chunk))


async def _chunks_of(graph: GraphFile) -> AsyncIterator[bytes]:
    """The content of a graph in chunks, the last of them only if all were those of the graph that was loaded."""
    digest, chunk = hashlib.sha256(), b""
    try:
        with await asyncio.to_thread(open_regular_file, Path(graph.path), graph.size) as file:
            while following := await asyncio.to_thread(file.read, CHUNK_BYTES):
                digest.update(following)
                if chunk:
                    yield chunk
                chunk = following
    except OSError as error:
        raise _changed() from error
    if digest.hexdigest() != graph.digest:
        raise _changed()
    yield chunk


def _begin(name: str, size: int, digest: bytes) -> pb.DownloadAdaptationResponse:
    return pb.DownloadAdaptationResponse(file=pb.PortableFile(name=name, size_bytes=size, digest=digest))


def _changed() -> NotPortableError:
    return NotPortableError("the bundle of its model has changed on disk; have the server's operator load it again")


class _Stream:
    """A stream whose client must keep up."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._begun = time.monotonic()
        self._sent = 0

    async def write(self, message: pb.DownloadAdaptationResponse) -> None:
        allowed = UNREAD_SECONDS + self._sent / LEAST_RATE - (time.monotonic() - self._begun)
        try:
            await asyncio.wait_for(self._context.write(message), min(allowed, UNREAD_SECONDS))
        except TimeoutError as error:
            raise OverloadedError(0.0, "the download was given up, because it was read too slowly") from error
        self._sent += len(message.chunk)
