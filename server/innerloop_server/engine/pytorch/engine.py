"""Runs bundles with PyTorch, on a CPU or a GPU."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from innerloop_learner.bundle import load_bundle
from innerloop_learner.manifest import BundleError
from innerloop_learner.precision import allow_tf32
from innerloop_learner.signatures import TrustedKeys
from innerloop_server.engine.graph_file import graph_file
from innerloop_server.engine.interface import Engine, LoadedModel, LoadError, Worker
from innerloop_server.engine.process_memory import resident
from innerloop_server.engine.pytorch.choose_device import choose_device
from innerloop_server.engine.pytorch.computation import Precision
from innerloop_server.engine.pytorch.model import TorchModel
from innerloop_server.engine.pytorch.state_memory import StateMemory
from innerloop_server.engine.states.budget import with_room


@dataclass(frozen=True)
class TorchSettings:
    """How an engine computes.

    Attributes:
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N".
        threads: most CPU threads of a computation that runs alone; half of the cores, but at most 4, when None.
        lanes: batches that a CPU computes side by side; one for every core when None.
        precision: of convolutions and matrix products.
        compiles: whether backbones are compiled once their models serve.
        state_bytes: of task states that are kept on the device.
        host_state_bytes: of task states that are kept in the host's memory when the device's is full.
    """

    device: str = "auto"
    threads: int | None = None
    lanes: int | None = None
    precision: Precision = "float32"
    compiles: bool = False
    state_bytes: int = 2**30
    host_state_bytes: int = 0


class TorchEngine(Engine):
    """Runs bundles with PyTorch.

    Raises:
        LoadError: there is no such device.
    """

    def __init__(self, settings: TorchSettings) -> None:
        try:
            self._device = choose_device(settings.device, settings.threads, settings.lanes)
        except ValueError as error:
            raise LoadError(str(error)) from error
        self.lanes, self.threads = self._device.lanes, self._device.threads
        self.largest_batch = self._device.largest_batch
        self.compiles = settings.compiles
        self._precision = settings.precision
        allow_tf32(settings.precision == "tf32")
        self._memory = StateMemory(
            self._device.torch_device, with_room(settings.state_bytes), settings.host_state_bytes
        )
        self._device.on_launch = self._memory.prefetch

    def start_worker(self) -> Worker | None:
        """See Engine.start_worker."""
        return self._device.start_worker()

    def load(self, name: str, path: Path, keys: TrustedKeys | None = None) -> LoadedModel:
        """Load a bundle onto the device."""
        try:
            bundle = load_bundle(path, self._device.torch_device, keys)
        except BundleError as error:
            raise LoadError(str(error)) from error
        model = TorchModel(name, bundle, self._device, self._memory, self._precision)
        model.graph = graph_file(path, bundle.manifest)
        return model

    def memory(self) -> Mapping[tuple[str, str], int]:
        """Memory that PyTorch holds on the GPU, or that this process has resident, and what task states take of it."""
        device = self._device.torch_device
        name = str(device)
        states = {(name, "states"): self._memory.device_bytes, ("host", "states"): self._memory.host_bytes}
        if device.type == "cuda":
            return {
                **states,
                (name, "allocated"): torch.cuda.memory_allocated(device),
                (name, "reserved"): torch.cuda.memory_reserved(device),
            }
        return {**states, **resident(name)}
