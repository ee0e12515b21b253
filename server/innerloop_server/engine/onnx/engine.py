"""Runs bundles that hold ONNX graphs with ONNX Runtime, on a CPU or a GPU; without PyTorch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from innerloop_learner.manifest import BundleError, read_files, read_manifest
from innerloop_learner.signatures import TrustedKeys
from innerloop_server.engine.graph_file import graph_file
from innerloop_server.engine.interface import Engine, LoadedModel, LoadError
from innerloop_server.engine.onnx.choose import choose_onnx_device
from innerloop_server.engine.onnx.device import OnnxDevice
from innerloop_server.engine.onnx.model import OnnxModel
from innerloop_server.engine.onnx.states import OnnxStates
from innerloop_server.engine.process_memory import resident
from innerloop_server.engine.states.budget import with_room


@dataclass(frozen=True)
class OnnxSettings:
    """Settings of an engine of ONNX Runtime.

    Attributes:
        device: "auto" (a GPU where there is one that ONNX Runtime can use), "cpu", "cuda" or "cuda:N".
        threads: CPU threads of a graph if there is one lane; None for half of the cores, but at most 4. With several
            lanes, each graph runs on one thread.
        lanes: number of batches that a CPU computes side by side; None for one per core.
        tf32: let a GPU round the factors of convolutions and matrix products to TF32.
        tensorrt: let TensorRT run the nodes that it supports, on a GPU and where it is installed.
        state_bytes: most bytes of task states on the device.
        host_state_bytes: most bytes of task states in the host's memory, which takes them when the device's is full.
    """

    device: str = "auto"
    threads: int | None = None
    lanes: int | None = None
    tf32: bool = False
    tensorrt: bool = False
    state_bytes: int = 2**30
    host_state_bytes: int = 0

    def choose_device(self) -> OnnxDevice:
        """The device that these settings name.

        Raises:
            LoadError: there is no such device.
        """
        try:
            return choose_onnx_device(self.device, self.threads, self.lanes, tf32=self.tf32, tensorrt=self.tensorrt)
        except ValueError as error:
            raise LoadError(str(error)) from error


class OnnxEngine(Engine):
    """Runs the graphs of bundles with ONNX Runtime.

    Args:
        settings: settings of the engine.
        device: device to run graphs on; None for the one that the settings name.

    Raises:
        LoadError: there is no such device.
    """

    def __init__(self, settings: OnnxSettings, device: OnnxDevice | None = None) -> None:
        self._device = device or settings.choose_device()
        self.lanes, self.threads = self._device.lanes, self._device.threads
        self.largest_batch = self._device.largest_batch
        self.compiles = False
        self._states = OnnxStates(self._device, with_room(settings.state_bytes), settings.host_state_bytes)

    def load(self, name: str, path: Path, keys: TrustedKeys | None = None) -> LoadedModel:
        """Load a bundle's graphs onto the device."""
        try:
            manifest = read_manifest(path, keys)
            files = read_files(path, manifest)
        except BundleError as error:
            raise LoadError(str(error)) from error
        if manifest.graphs is None or manifest.traits is None:
            raise LoadError(
                f"{path.name}: has no ONNX graphs for ONNX Runtime to run; make some with "
                f"`innerloop export {path.name} --out DIR --onnx`, or serve it by PyTorch"
            )
        if manifest.graphs.refused:
            raise LoadError(f"{path.name}: can't be served by ONNX Runtime: {manifest.graphs.refused}")
        try:
            model = OnnxModel(name, manifest, manifest.traits, files, self._device, self._states)
        except LoadError as error:
            raise LoadError(f"{path.name}: {error}; export it again") from error
        except Exception as error:  # ONNX Runtime's exceptions have no base class
            # ONNX Runtime's message names lines of its source, and must not reach clients; this function's does.
            structlog.get_logger().error("graphs not loaded", bundle=path.name, reason=str(error))
            raise LoadError(f"{path.name}: ONNX Runtime can't load its graphs; export it again") from error
        model.graph = graph_file(path, manifest)
        return model

    def memory(self) -> Mapping[tuple[str, str], int]:
        """Bytes that task states take, and bytes of this process that are resident in memory."""
        name = self._device.name
        states = {(name, "states"): self._states.device_bytes, ("host", "states"): self._states.host_bytes}
        return {**states, **resident("cpu")}
