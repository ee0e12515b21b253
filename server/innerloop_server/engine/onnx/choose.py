"""Chooses the device that ONNX Runtime computes on."""

import numpy as np
import onnxruntime

from innerloop_server.engine.onnx.device import OnnxDevice
from innerloop_server.engine.onnx.host import HostDevice

TENSORRT, CUDA = "TensorrtExecutionProvider", "CUDAExecutionProvider"


def choose_onnx_device(
    name: str, threads: int | None, lanes: int | None, *, tf32: bool = False, tensorrt: bool = False
) -> OnnxDevice:
    """Choose a device by name.

    Args:
        name: "auto" (a GPU where there is one and ONNX Runtime can use it), "cpu", "cuda" or "cuda:N".
        threads: see HostDevice.
        lanes: see HostDevice.
        tf32: let a GPU round the factors of convolutions and matrix products to TF32.
        tensorrt: let TensorRT run the nodes that it supports, on a GPU and where it is installed.

    Raises:
        ValueError: there is no such device, or ONNX Runtime can't use it.
    """
    index = int(name.partition(":")[2] or 0)
    usable = name != "cpu" and _can_use_cuda(index)
    if name == "cpu" or (name == "auto" and not usable):
        return HostDevice(threads, lanes)
    if not usable:
        raise ValueError(
            f"ONNX Runtime can't use {name} here: it needs an NVIDIA GPU, and what innerloop[onnx-server-gpu] installs "
            "in place of what innerloop[onnx-server] does"
        )
    cuda = {
        "device_id": str(index),
        "use_tf32": "1" if tf32 else "0",
        "cudnn_conv_algo_search": "HEURISTIC",  # by default, the first batch of each shape waits for a search
        "arena_extend_strategy": "kSameAsRequested",  # by default, it takes up to twice the memory it needs
    }
    providers = [(CUDA, cuda)]
    if tensorrt and TENSORRT in onnxruntime.get_available_providers():
        providers.insert(0, (TENSORRT, {"device_id": str(index)}))
    from innerloop_server.engine.onnx.accelerator import Accelerator  # needs a package that CPUs do without

    return Accelerator("cuda", index, providers)


def _can_use_cuda(index: int) -> bool:
    """Try to put a number on that GPU; that ONNX Runtime was built for GPUs does not mean that one can be used."""
    if CUDA not in onnxruntime.get_available_providers():
        return False
    onnxruntime.preload_dlls()  # loads CUDA if it was installed as Python packages
    try:
        onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(1, np.float32), "cuda", index)
    except RuntimeError:
        return False
    return True
