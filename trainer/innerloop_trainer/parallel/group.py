"""The processes of a run, and what they say to each other."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import Store

PATIENCE = timedelta(hours=12)
"""Longest time that a process waits for the others: more than a validation, a slow read of the data or the write of a
checkpoint takes. It need not be short, since a process that has ended is noticed at once."""


class ProcessError(RuntimeError):
    """Another process of the run has failed or ended; the message says which if that is known.

    Args:
        message: what to tell the user.
        rank: number of the process that the error is raised in.

    Attributes:
        leads: whether it is raised in the leading process, which has to tell the user.
    """

    def __init__(self, message: str, rank: int = 0) -> None:
        super().__init__(message)
        self.leads = rank == 0


class Group:
    """The processes that train one run together; this one is alone.

    Attributes:
        rank: number of this process among them.
        size: number of processes.
    """

    rank = 0
    size = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that validates, saves and reports."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """The sum over processes of a tensor that all of them have, the same to the bit in each; it may be in place."""
        return value

    def any(self, mine: bool) -> bool:
        """Whether it is true in any process."""
        return mine

    def from_leader(self, content: bytes) -> bytes:
        """What the leading process gives; what the others give is left out."""
        return content

    @contextmanager
    def together(self) -> Iterator[None]:
        """Run the body in every process. If it fails in one, it fails in all.

        Raises:
            ProcessError: it failed in another process, or here in one that does not lead. So the leader alone has
                something to report: its own error, or that of the first process that failed.
        """
        yield


class ProcessGroup(Group):
    """The processes that PyTorch's default process group joins.

    Args:
        device: device that this process trains on.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._device = device

    def sum(self, value: Tensor) -> Tensor:
        """See Group.sum."""
        value = value.contiguous()
        with self._others_must_live():
            dist.all_reduce(value)
        return value

    def any(self, mine: bool) -> bool:
        """See Group.any; the device need not finish its work for it."""
        return bool(self.sum(torch.tensor(int(mine))))

    def from_leader(self, content: bytes) -> bytes:
        """See Group.from_leader."""
        return self._from(0, content)

    @contextmanager
    def together(self) -> Iterator[None]:
        """See Group.together."""
        try:
            yield
        except Exception as error:
            if isinstance(error, ProcessError):
                raise
            self._texts(f"{error}" or type(error).__name__)
            if self.leads:
                raise
            raise ProcessError(f"{error}", self.rank) from error
        for rank, text in enumerate(self._texts("")):
            if text:
                raise ProcessError(f"process {rank} of {self.size}: {text}", self.rank)

    def _texts(self, mine: str) -> list[str]:
        """The text of every process."""
        return [self._from(rank, mine.encode()).decode() for rank in range(self.size)]

    def _from(self, rank: int, content: bytes) -> bytes:
        """What the process of this number gives."""
        mine = rank == self.rank
        with self._others_must_live():
            length = torch.tensor(len(content))
            dist.broadcast(length, rank)
            data = torch.frombuffer(bytearray(content), dtype=torch.uint8) if mine and content else None
            data = torch.empty(int(length), dtype=torch.uint8) if data is None else data
            dist.broadcast(data, rank)
        return data.numpy().tobytes()

    @contextmanager
    def _others_must_live(self) -> Iterator[None]:
        """Say what an error of the connection means."""
        try:
            yield
        except RuntimeError as error:
            raise ProcessError("another process of this run has ended, or can't be reached", self.rank) from error


ALONE = Group()
"""The group of a run that one process trains."""


@contextmanager
def joined(device: torch.device, rank: int, size: int, store: Store | None = None) -> Iterator[Group]:
    """Join the processes of a run, and leave them at the end.

    Args:
        device: device that this process trains on.
        rank: number of this process.
        size: number of processes.
        store: what the processes find each other by; None for what the environment names, as torchrun does.
    """
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    where = {"init_method": "env://"} if store is None else {"store": store}
    dist.init_process_group(backend, rank=rank, world_size=size, timeout=PATIENCE, **where)
    try:
        yield ProcessGroup(device)
    finally:
        dist.destroy_process_group()
