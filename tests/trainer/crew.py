"""Processes for tests of runs that several of them train: each does what it is given in turn, joined by gloo."""

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch._C._distributed_c10d import FileStore

from innerloop_trainer.parallel.group import joined

Job = Callable[..., Any]
"""A function of a group and other arguments, at the top of a module, as is what it returns."""


class Crew:
    """Some processes; the first few of them do a job together."""

    def __init__(self, connections: Sequence[Any], folder: Path) -> None:
        self._connections, self._folder, self._jobs = connections, folder, 0

    def do(self, size: int, job: Job, *arguments: Any) -> list[Any]:
        """What so many processes return; a text of the error for one that fails."""
        self._jobs += 1
        for rank, connection in enumerate(self._connections[:size]):
            connection.send((str(self._folder / f"store{self._jobs}"), rank, size, job, arguments))
        return [connection.recv() for connection in self._connections[:size]]


@contextmanager
def crew_of(size: int, folder: Path) -> Iterator[Crew]:
    """Start processes, and end them at the end."""
    context = get_context("forkserver")  # PyTorch is imported once for all
    context.set_forkserver_preload([__name__])
    pipes = [context.Pipe() for _ in range(size)]
    processes = [context.Process(target=_live, args=(theirs,), daemon=True) for _, theirs in pipes]
    for process in processes:
        process.start()
    for _, theirs in pipes:
        theirs.close()  # so that nobody waits for a process that has ended
    try:
        yield Crew([ours for ours, _ in pipes], folder)
    finally:
        for ours, _ in pipes:
            with suppress(OSError):
                ours.send(None)
        for process in processes:
            process.join(30)


def _live(connection: Any) -> None:
    torch.set_num_threads(1)
    while (given := connection.recv()) is not None:
        store, rank, size, job, arguments = given
        try:
            with joined(torch.device("cpu"), rank, size, FileStore(store, size)) as group:
                result = job(group, *arguments)
        except Exception as error:
            traceback.print_exc()
            result = f"{type(error).__name__}: {error}"
        connection.send(result)
