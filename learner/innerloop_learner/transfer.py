"""Copies from the memory of the host to that of a device."""

import torch

from innerloop_learner.tasks import Params


def sent(tensors: Params, device: torch.device) -> Params:
    """Tensors by name, brought from the host to a device.

    A GPU reads them later, in the order of its work, and the host goes on at once. That takes pinned memory; PyTorch
    does not use it again before the copy is over.
    """
    if device.type == "cuda":
        tensors = {name: value.pin_memory() for name, value in tensors.items()}
    return {name: value.to(device, non_blocking=True) for name, value in tensors.items()}
