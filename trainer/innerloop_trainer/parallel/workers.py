"""Worker processes of one thread each that compute tasks beside this one, on a CPU."""

import os
import pickle
import signal
import socket
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch
from torch._C._distributed_c10d import FileStore

from innerloop_learner.host_memory import keep_freed_memory
from innerloop_learner.objectives import Stage
from innerloop_learner.tasks import Episodes, Params
from innerloop_trainer.outer_loop import Estimate, Estimator
from innerloop_trainer.parallel.group import Group, ProcessError, joined
from innerloop_trainer.parallel.shard import Shard, rows_of
from innerloop_trainer.parallel.sharded import estimate_part

CPU = torch.device("cpu")

INTERFACE = "GLOO_SOCKET_IFNAME"
"""Variable that names the network interface by which gloo connects processes."""

SECONDS_TO_LEAVE = 5.0


class _WorkerError(ProcessError):
    """A worker failed and has said how."""


class Workers:
    """Processes that compute an estimator's batch together with this one, each a part of the tasks with one thread.

    They hold nothing but the estimator. Parameters and tasks come over a pipe with every call, and results are added up
    by gloo over the loopback interface. So they may come and go between outer steps, and leave no state behind.

    Args:
        estimator: the estimator; it is sent to the processes by pickling.
        size: number of processes, this one among them.

    Raises:
        ProcessError: the estimator can't be sent, or the system gives no more processes.
    """

    def __init__(self, estimator: Estimator, size: int) -> None:
        self.size = size
        self._estimator = estimator
        self._group: Group | None = None
        self._stack = ExitStack()
        try:
            content = pickle.dumps(estimator)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ProcessError(f"the estimator can't be sent to worker processes ({error})") from error
        # Workers are forks of a process that imports PyTorch once for all. A fork of this one would lack its threads.
        context = get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._processes: list[ForkServerProcess] = []
        self._connections: list[Connection] = []
        try:
            for _ in range(1, size):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs,), daemon=True, name="innerloop-worker")
                self._connections.append(ours)
                process.start()
                self._processes.append(process)
                theirs.close()
                _send(ours, content)
        except OSError as error:
            self.close()
            raise ProcessError(f"worker processes can't be started ({error})") from error

    @property
    def ready(self) -> bool:
        """Whether all processes have started, or one has failed to."""
        return self._group is not None or all(connection.poll() for connection in self._connections)

    def estimate(self, params: Params, carried: Params, episodes: Episodes, stage: Stage) -> Estimate:
        """See Estimator.estimate; waits for processes that have not started yet.

        Raises:
            ProcessError: a worker has ended or failed.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            group = self._joined()
            tasks = episodes.support.tasks
            for rank, connection in enumerate(self._connections, start=1):
                # Row numbers copy the tasks of this part. A slice would be pickled with all tasks behind it.
                rows = torch.arange(tasks)[rows_of(rank, self.size, tasks)]
                _send(connection, pickle.dumps((params, carried, episodes.of_tasks(rows), stage, tasks)))
            shard = Shard(group, tasks)
            return estimate_part(self._estimator, shard, params, carried, episodes.of_tasks(shard.rows), stage)
        except _WorkerError:
            raise
        except (ProcessError, OSError, EOFError) as error:
            raise ProcessError(self._what_happened()) from error
        finally:
            torch.set_num_threads(threads)

    def close(self) -> None:
        """End all processes."""
        for connection in self._connections:
            connection.close()
        self._stack.close()
        for process in self._processes:
            process.join(SECONDS_TO_LEAVE)
            if process.is_alive():
                process.kill()
                process.join()

    def _joined(self) -> Group:
        if self._group is None:
            for connection in self._connections:
                self._check(connection.recv_bytes())
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="innerloop-")))
            for rank, connection in enumerate(self._connections, start=1):
                _send(connection, pickle.dumps((str(folder / "store"), rank, self.size)))
            self._group = self._stack.enter_context(_by_loopback(folder / "store", 0, self.size))
        return self._group

    def _check(self, text: bytes) -> None:
        """Check what a worker says: nothing when it has started, and an error when it fails."""
        if text:
            raise _WorkerError(f"a worker process failed:\n{text.decode()}")

    def _what_happened(self) -> str:
        """The reason why workers don't go on."""
        for process, connection in zip(self._processes, self._connections, strict=True):
            with suppress(OSError, EOFError):
                while connection.poll(SECONDS_TO_LEAVE):
                    self._check(connection.recv_bytes())
            process.join(SECONDS_TO_LEAVE)
            if process.exitcode:
                how = f"by signal {-process.exitcode}" if process.exitcode < 0 else f"with status {process.exitcode}"
                return f"a worker process of this run was ended {how}, perhaps since memory ran out"
        return "a worker process of this run can't be reached"


def _work(connection: Connection) -> None:
    """The life of a worker: it computes what it is sent, until the other end is closed."""
    # Who asks a run to stop asks the process that it was started as, which ends its workers.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    torch.set_num_threads(1)
    keep_freed_memory()
    try:
        estimator = _received(connection)
        _send(connection, b"")
        store, rank, size = _received(connection)
        with _by_loopback(Path(store), rank, size) as group:
            while True:
                params, carried, own, stage, tasks = _received(connection)
                estimate_part(estimator, Shard(group, tasks), params, carried, own, stage)
    except (EOFError, OSError, ProcessError):
        return  # the run has ended
    except Exception:
        with suppress(OSError):
            _send(connection, traceback.format_exc().encode())
        raise SystemExit(1) from None


def _send(connection: Connection, content: bytes) -> None:
    connection.send_bytes(content)


def _received(connection: Connection) -> Any:
    """What this program itself has pickled on the other side of a pipe."""
    return pickle.loads(connection.recv_bytes())  # noqa: S301 - nobody else has the pipe


@contextmanager
def _by_loopback(store: Path, rank: int, size: int) -> Iterator[Group]:
    """Join processes of this machine by its loopback interface, which nobody else reaches."""
    before = os.environ.get(INTERFACE)
    loopback = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    if loopback:
        os.environ[INTERFACE] = loopback[0]
    try:
        with joined(CPU, rank, size, FileStore(str(store), size)) as group:
            yield group
    finally:
        if before is None:
            os.environ.pop(INTERFACE, None)
        else:
            os.environ[INTERFACE] = before
