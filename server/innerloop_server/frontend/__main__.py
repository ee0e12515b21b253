"""`python -m innerloop_server.frontend PARENT LINK SEGMENT`: a front end, started by the engine process.

PARENT is the process id of the engine process, LINK and SEGMENT are descriptors that it handed down.
"""

import asyncio
import os
import signal
import socket
import sys

from innerloop_server.frontend.process import FrontEndProcess
from innerloop_server.ipc.child_process import end_with
from innerloop_server.ipc.segment import Segment


async def _run(link: int, segment: int) -> bool:
    memory = Segment(segment)
    memory.close()
    return await FrontEndProcess(memory).run(socket.socket(fileno=link))


def main() -> None:
    """Serve until the engine process says stop, or is gone."""
    # Signals to stop are for the engine process, though whoever sends them may send them to all processes.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent, link, segment = map(int, sys.argv[1:])
    end_with(parent)
    answered = asyncio.run(_run(link, segment))
    os._exit(0 if answered else 1)  # threads may still be decoding for callers that have left


main()
