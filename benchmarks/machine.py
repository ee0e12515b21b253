"""The machine that a figure was measured on."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch


def describe_machine() -> dict[str, Any]:
    """Processor, cores, versions and time, as every results file records them."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return models[0] if models else platform.machine()


def on_gpu(device: str) -> bool:
    """Whether a device, which may be "auto", is a GPU."""
    return device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())


def results_file(script: str, device: str) -> Path:
    """Where a script keeps what it measured on a device, which may be "auto": apart for GPUs."""
    return Path(script).with_name("results-cuda.json" if on_gpu(device) else "results.json")
