"""A process that computes batches for the engine's process.

Python runs one thread at a time, and computing a batch means thousands of short calls: threads of one process that do
so side by side spend more time on taking turns than on computing, and keep requests from being answered. So each lane
of a CPU has a process.
"""

import os
import select
import subprocess
import sys
import weakref
from collections import deque
from contextlib import ExitStack, suppress

from torch import Tensor

from innerloop_server.engine.interface import RemoteError
from innerloop_server.engine.pytorch.computation import Computation
from innerloop_server.engine.pytorch.programs import Program
from innerloop_server.engine.pytorch.staging import Staging
from innerloop_server.engine.pytorch.worker_messages import (
    Done,
    Failed,
    ForgetOrder,
    LoadOrder,
    Order,
    Reply,
    connect,
    receive,
    send,
)
from innerloop_server.engine.waiting import readable
from innerloop_server.ipc.shared_memory import create_shared_memory

MODULE = "innerloop_server.engine.pytorch.worker_process"
STAGING_BYTES = 2**30
"""Address space; memory is taken where it is written to."""


class WorkerError(RemoteError):
    """A worker has ended, or could not compute; the batch can be computed here."""


class Worker:
    """One process, asked for one thing at a time, on any thread.

    Attributes:
        ready: whether it is known to have started.
        lost: whether it has not answered.
    """

    def __init__(self) -> None:
        self._models: weakref.WeakKeyDictionary[Computation, int] = weakref.WeakKeyDictionary()
        self._forgotten: deque[int] = deque()
        self._loaded = 0
        self.ready = self.lost = False
        with ExitStack() as its_own, ExitStack() as ours:
            descriptor = create_shared_memory("innerloop-worker", STAGING_BYTES)
            its_own.callback(os.close, descriptor)
            self._end, its_end = connect()
            ours.enter_context(self._end)
            its_own.enter_context(its_end)
            self._staging = Staging(descriptor)
            descriptors = (its_end.fileno(), descriptor)
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", MODULE, *map(str, [os.getpid(), *descriptors])],
                stdin=subprocess.DEVNULL,
                pass_fds=descriptors,
            )
            ours.pop_all()  # it has started: this end stays open

    def wait(self, seconds: float) -> bool:
        """Whether the process has started, or starts within so many seconds."""
        if not self.ready and select.select([self._end], [], [], seconds)[0]:
            with suppress(EOFError, OSError):
                receive(self._end, Reply)
                self.ready = True
        return self.ready

    @property
    def ended(self) -> bool:
        """Whether the process is no more, or will be soon."""
        return self.lost or self._process.poll() is not None

    def knows(self, computation: Computation) -> bool:
        """Whether it need not be told of a computation first, which takes a while."""
        return computation in self._models

    async def run(self, program: Program) -> tuple[Tensor, ...]:
        """Outputs of a program; they lie in shared memory until the next one runs. Waits for the process only.

        Raises:
            WorkerError: it can't.
        """
        tensors = program.portable()
        # Outputs lie behind the inputs: as many states or answers as there are tasks, which are rarely larger.
        if not self._staging.fits(tensors):
            raise WorkerError("the batch is larger than the memory to pass it on")
        model = await self._model(program.computation)
        done = await self._ask(program.order(model, self._staging.put(tensors)))
        if done.layout:
            program.done(done.layout)
        return tuple(self._staging.at(place) for place in done.outputs)

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._end.close()

    async def _model(self, computation: Computation) -> int:
        """The number under which the process knows a computation, told to it at first."""
        while self._forgotten:
            await self._ask(ForgetOrder(self._forgotten.popleft()))
        if computation not in self._models:
            if not self._staging.fits(computation.params.values()):
                raise WorkerError("the model is larger than the memory to pass it on")
            places = self._staging.put(computation.params.values())
            params = dict(zip(computation.params, places, strict=True))
            spec = computation.learner.spec.to_json()
            self._loaded += 1
            await self._ask(LoadOrder(self._loaded, spec, computation.precision, params))
            self._models[computation] = self._loaded
            weakref.finalize(computation, self._forgotten.append, self._loaded)
        return self._models[computation]

    async def _ask(self, order: Order) -> Done:
        try:
            send(self._end, order)
            await readable(self._end)
            reply: Reply = receive(self._end, Reply)
        except ValueError as error:
            raise WorkerError(str(error)) from error
        except (EOFError, OSError) as error:
            self.lost = True
            raise WorkerError("the process has ended") from error
        if isinstance(reply, Failed):
            raise WorkerError(reply.why)
        return reply
