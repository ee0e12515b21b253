"""Worker processes, as the engine's process sees them.

Python runs one thread at a time, and computing a batch means thousands of short calls: threads of one process that do
so side by side spend more time on taking turns than on computing, and keep requests from being answered. So each lane
of a CPU with several cores has a process.
"""

import os
import subprocess
import sys
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from numpy.typing import NDArray

from innerloop_server.engine.interface import Worker, WorkerError
from innerloop_server.engine.pytorch.computation import Computation
from innerloop_server.engine.pytorch.worker_control import CONTROL_BYTES, WorkerControl
from innerloop_server.engine.pytorch.worker_messages import ForgetOrder, LoadOrder, Order, Reply
from innerloop_server.ipc.arrays import ArrayAt, array_in, end_of, lay_out, write
from innerloop_server.ipc.packets import packet_sockets, receive_packet, send_packet
from innerloop_server.ipc.segment import Segment

MODULE = "innerloop_server.engine.pytorch.worker_process"

MEMORY_BYTES = 2**30
"""Bytes of memory shared with a worker; only pages that were written to take up real memory."""


class TorchWorker(Worker):
    """A process that computes batches by PyTorch.

    Raises:
        OSError: the system has no room for another process.
    """

    def __init__(self) -> None:
        self._models: weakref.WeakKeyDictionary[Computation, int] = weakref.WeakKeyDictionary()
        self._forgotten: deque[int] = deque()
        self._loaded = 0
        with ExitStack() as its_own, ExitStack() as ours:
            segment = Segment.create(MEMORY_BYTES + CONTROL_BYTES, "innerloop-worker")
            its_own.callback(segment.close)
            self._end, its_end = packet_sockets()
            ours.enter_context(self._end)
            its_own.enter_context(its_end)
            self._memory = segment.whole[:-CONTROL_BYTES]
            self._control = WorkerControl(segment.whole[-CONTROL_BYTES:])
            descriptors = (its_end.fileno(), segment.descriptor)
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", MODULE, *map(str, [os.getpid(), *descriptors])],
                stdin=subprocess.DEVNULL,
                pass_fds=descriptors,
            )
            ours.pop_all()  # it has started: this end stays open

    def fileno(self) -> int:
        """See Worker.fileno."""
        return self._end.fileno()

    def receive(self) -> Reply:
        """See Worker.receive."""
        try:
            reply: Reply = receive_packet(self._end, Reply)
        except (EOFError, OSError) as error:
            raise WorkerError("the process has ended") from error
        return reply

    def abandon(self) -> None:
        """See Worker.abandon."""
        self._control.abandoned = True

    def beats(self) -> int:
        """See Worker.beats."""
        return self._control.beats

    def stop(self) -> None:
        """See Worker.stop."""
        self._process.kill()
        self._process.wait()
        self._end.close()

    def knows(self, computation: Computation) -> bool:
        """Whether the process need not be told of a computation first, which copies its parameters."""
        return computation in self._models

    def number_of(self, computation: Computation) -> int:
        """The number by which orders name a computation; the process is told of the computation first.

        Raises:
            WorkerError: it can't be told.
        """
        while self._forgotten:
            self.send(ForgetOrder(self._forgotten.popleft()))
        if computation not in self._models:
            self._loaded += 1
            self._load(computation, self._loaded)
            self._models[computation] = self._loaded
            weakref.finalize(computation, self._forgotten.append, self._loaded)
        return self._models[computation]

    def write(self, arrays: Sequence[NDArray[Any]], after: int = 0) -> tuple[ArrayAt, ...]:
        """Copy arrays into the shared memory, behind so many bytes; returns where they lie.

        Arrays are copied by NumPy: PyTorch gives the interpreter away in each of its calls, and where other threads
        are busy, a thread waits for it longer than such a call takes.

        Raises:
            WorkerError: there is no room for them.
        """
        try:
            return write(self._memory, arrays, after)
        except ValueError as error:
            raise WorkerError(str(error)) from error

    def at(self, place: ArrayAt) -> NDArray[Any]:
        """A view of an array in the shared memory, to be copied before anything else is sent."""
        return array_in(self._memory, place)

    def send(self, order: Order, descriptors: Sequence[int] = ()) -> None:
        """Tell the process what to do.

        Raises:
            WorkerError: it can't be told.
        """
        self._control.abandoned = False  # what was said of an earlier order
        try:
            send_packet(self._end, order, descriptors)
        except (ValueError, OSError) as error:
            raise WorkerError(str(error)) from error

    def _load(self, computation: Computation, number: int) -> None:
        params = [tensor.numpy() for tensor in computation.params.values()]
        places = lay_out(params)
        try:
            segment = Segment.create(max(end_of(places), 1), "innerloop-model")
        except OSError as error:
            raise WorkerError(f"there is no memory to pass the model on ({error.strerror})") from error
        try:
            write(segment.whole, params)
            named = dict(zip(computation.params, places, strict=True))
            spec = computation.learner.spec.to_json()
            self.send(LoadOrder(number, spec, computation.precision, named), [segment.descriptor])
        finally:
            segment.close()
