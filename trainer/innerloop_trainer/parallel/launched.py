"""Processes that torchrun, or another launcher with its variables, has started for one run."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from innerloop_trainer.config import ConfigError
from innerloop_trainer.devices import choose_device
from innerloop_trainer.parallel.group import ALONE, Group, joined


@dataclass(frozen=True)
class Launch:
    """What a launcher tells a process of a run.

    Attributes:
        rank: number of the process among all.
        size: number of processes on all machines.
        local_rank: number of the process among those of its machine.
        local_size: number of processes on its machine.
        restarts: how often the launcher has started the processes again after one of them ended.
        restarts_in_vain: whether the launcher would start the processes again although they can't find each other then.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    restarts: int = 0
    restarts_in_vain: bool = False

    def device(self, name: str) -> torch.device:
        """Choose a device by name, as `choose_device` does, and a GPU of its own for each process of a machine.

        Raises:
            ConfigError: this machine has no such device, or fewer GPUs than processes.
        """
        device = choose_device(name)
        if device.type == "cpu" or self.size == 1:
            return device
        if device.index is not None and self.local_size > 1:
            raise ConfigError(f"each process takes a GPU of its own; use --device cuda instead of {name}")
        if device.index is None and self.local_rank >= torch.cuda.device_count():
            count = torch.cuda.device_count()
            raise ConfigError(
                f"there are {count} GPUs for {self.local_size} processes; lower --nproc-per-node to {count}"
            )
        device = device if device.index is not None else torch.device("cuda", self.local_rank)
        torch.cuda.set_device(device)
        return device

    @contextmanager
    def group(self, device: torch.device) -> Iterator[Group]:
        """The group of the processes that were launched together.

        Raises:
            ConfigError: they would be started again in vain. The first process tells it; the launcher ends the others.
        """
        if self.restarts_in_vain and self.rank == 0:
            raise ConfigError(
                "torchrun would start these processes again with the addresses of those that have ended; set "
                "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment, or leave --max-restarts out"
            )
        if self.size == 1:
            yield ALONE
        else:
            with joined(device, self.rank, self.size) as group:
                yield group


def read_launch(environment: Mapping[str, str]) -> Launch:
    """Read what torchrun tells by environment variables; one process if there are none."""
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= environment.keys():
        return Launch()

    def number(name: str, default: int) -> int:
        return int(environment.get(name, default))

    rank, size = number("RANK", 0), number("WORLD_SIZE", 1)
    local_rank, local_size = number("LOCAL_RANK", rank), number("LOCAL_WORLD_SIZE", size)
    # torchrun's own store, in which processes find each other, keeps the addresses of the first start
    # (https://github.com/pytorch/pytorch/issues/135712).
    keeps_addresses = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    in_vain = size > 1 and keeps_addresses and number("TORCHELASTIC_MAX_RESTARTS", 0) > 0
    return Launch(rank, size, local_rank, local_size, number("TORCHELASTIC_RESTART_COUNT", 0), in_vain)
