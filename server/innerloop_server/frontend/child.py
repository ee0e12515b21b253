"""A front end, as the engine process sees it: a child process, a link and a segment."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

import structlog

from innerloop_server.frontend import messages
from innerloop_server.frontend.request_handler import RequestHandler
from innerloop_server.frontend.signs_of_life import ASK_SECONDS, SILENT_LOOKS
from innerloop_server.ipc.link import Link
from innerloop_server.ipc.segment import Segment
from innerloop_server.serving.interface import Serving

MODULE = "innerloop_server.frontend"


class FrontEnd:
    """One front-end process, from its start to its end.

    Args:
        serving: computes for it.
        segment_bytes: size of the memory shared with it.
        listening: is called when it answers gRPC.

    Attributes:
        listens: whether it does.
        has_listened: whether it ever did.
        refused: why it can't start, if it says so.
    """

    def __init__(self, serving: Serving, segment_bytes: int, listening: Callable[[], None]) -> None:
        self.listens = self.has_listened = False
        self.refused = ""
        self._listening = listening
        self._told = self._heard = False
        self._lost = asyncio.Event()
        self._segment = Segment.create(segment_bytes)
        self._link: Link[messages.FromFrontEnd] = Link(messages.FromFrontEnd, self._receive, self._lost.set)
        self._requests = RequestHandler(serving, self._link, self._segment)

    async def run(self, start: Callable[[], messages.Start]) -> int:
        """Start the process, serve it, and clean up after it; returns its exit code.

        Args:
            start: makes the first message; it is called when that can be sent, and all later news follow it.

        Raises:
            OSError: it can't be started.
        """
        try:
            return await self._serve(start)
        finally:
            # Without these references, memory is freed as soon as nothing computes on it, not at the next garbage
            # collection.
            del self._requests, self._segment

    def send(self, message: messages.ToFrontEnd) -> None:
        """Send a message, unless the first message is yet to be made: that one will contain the news."""
        if self._told:
            self._link.send(message)

    async def _serve(self, start: Callable[[], messages.Start]) -> int:
        process, own_end = self._start_process()
        try:
            await self._link.open(own_end)
            self._link.send(start())
            self._told = True
            await self._wait_for_end()
        finally:
            self.listens = False
            process.kill()  # it may have closed its link and live on
            code = await asyncio.to_thread(process.wait)
            self._link.close()
            await self._requests.close()
        return code

    async def _wait_for_end(self) -> None:
        """Wait until the link is lost, or nothing is heard from a process that listens."""
        silent = 0
        while silent < SILENT_LOOKS:
            self._heard = False
            with suppress(TimeoutError):
                async with asyncio.timeout(ASK_SECONDS):
                    await self._lost.wait()
                    return
            silent = 0 if self._heard or not self.listens else silent + 1
        structlog.get_logger().error("a front end does not answer")

    def _start_process(self) -> "tuple[subprocess.Popen[bytes], socket.socket]":
        """The process and this end of the link to it; the segment's descriptor is closed in any case."""
        try:
            own_end, its_end = socket.socketpair()
            with its_end:
                try:
                    return _launch(its_end.fileno(), self._segment.descriptor), own_end
                except BaseException:
                    own_end.close()
                    raise
        finally:
            self._segment.close()

    def _receive(self, message: messages.FromFrontEnd) -> None:
        self._heard = True
        match message:
            case messages.Request() | messages.Cancel():
                self._requests.receive(message)
            case messages.Listening():
                self.listens = self.has_listened = True
                self._listening()
            case messages.Refused():
                self.refused = message.why


def _launch(*descriptors: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", MODULE, *map(str, [os.getpid(), *descriptors])],
        stdin=subprocess.DEVNULL,
        pass_fds=descriptors,
        process_group=0,  # a Ctrl-C in the terminal is for the engine process, which tells the front ends to stop
    )
