"""Settings to the engine that they ask for. Libraries are imported only where they compute."""

from importlib.util import find_spec

from innerloop_learner.encoders.session import Computing
from innerloop_server.backends import Backend, parse_backends
from innerloop_server.engine.composite import CompositeEngine
from innerloop_server.engine.cores import lone_threads
from innerloop_server.engine.encoding import EncodingEngine
from innerloop_server.engine.interface import Engine, LoadError
from innerloop_server.settings import ConfigurationError, ServerSettings

EXTRAS: dict[Backend, str] = {"torch": "server", "onnxruntime": "onnx-server"}


def make_engine(settings: ServerSettings) -> Engine:
    """The engine of a server.

    Raises:
        ConfigurationError: a backend is not installed, can't compute as asked, or there is no such device.
    """
    backends = parse_backends(settings.backend)
    for backend in sorted(backends.needed):
        if not find_spec(backend):
            raise ConfigurationError(f'backend: {backend} is not installed; pip install "innerloop[{EXTRAS[backend]}]"')
    try:
        engines = {backend: _MAKERS[backend](settings) for backend in sorted(backends.needed)}
    except LoadError as error:
        raise ConfigurationError(f"device: {error}") from error
    engine = CompositeEngine(engines, backends) if len(engines) > 1 else next(iter(engines.values()))
    return EncodingEngine(engine, Computing(settings.threads or lone_threads(), cuda=settings.device != "cpu"))


def _torch_engine(settings: ServerSettings) -> Engine:
    from innerloop_server.engine.pytorch.engine import TorchEngine, TorchSettings

    return TorchEngine(
        TorchSettings(
            settings.device,
            settings.threads,
            settings.lanes,
            settings.precision,
            settings.compile,
            int(settings.adaptation_bytes),
            int(settings.host_adaptation_bytes),
        )
    )


def _onnx_engine(settings: ServerSettings) -> Engine:
    from innerloop_server.engine.onnx.engine import OnnxEngine, OnnxSettings

    if settings.precision == "bfloat16":
        raise ConfigurationError("precision: bfloat16 needs PyTorch; ONNX Runtime computes in float32 or tf32")
    return OnnxEngine(
        OnnxSettings(
            settings.device,
            settings.threads,
            settings.lanes,
            settings.precision == "tf32",
            settings.compile,
            int(settings.adaptation_bytes),
            int(settings.host_adaptation_bytes),
        )
    )


_MAKERS = {"torch": _torch_engine, "onnxruntime": _onnx_engine}
