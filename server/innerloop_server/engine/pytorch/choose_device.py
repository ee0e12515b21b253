"""Chooses the device that PyTorch computes on."""

import torch

from innerloop_server.engine.cores import lone_threads, usable_cores
from innerloop_server.engine.pytorch.cpu_device import CpuDevice
from innerloop_server.engine.pytorch.cuda_device import CudaDevice
from innerloop_server.engine.pytorch.device import Device


def choose_device(name: str, threads: int | None, lanes: int | None) -> Device:
    """The device of that name.

    Args:
        name: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N".
        threads: most CPU threads of a computation that runs alone; half of the cores, but at most 4, when None.
        lanes: batches that a CPU computes side by side; one for every core when None.

    Raises:
        ValueError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cpu":
        return CpuDevice(threads or lone_threads(), lanes or usable_cores())
    if (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"there is no device {name} on this machine")
    return CudaDevice(device)
