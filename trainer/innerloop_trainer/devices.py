"""Devices to train and evaluate on."""

import re

import torch

from innerloop_learner.precision import allow_tf32
from innerloop_trainer.config import ConfigError


def choose_device(name: str) -> torch.device:
    """Choose a device by name; "auto" is a GPU where there is one. GPUs multiply in full precision from then on.

    Raises:
        ConfigError: this machine has no such device.
    """
    allow_tf32(False)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", name)
    if match is None:
        raise ConfigError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N")
    if name != "cpu" and int(match[1] or 0) >= torch.cuda.device_count():
        raise ConfigError(f"there is no device {name} on this machine for PyTorch to use; use --device cpu")
    return torch.device(name)
