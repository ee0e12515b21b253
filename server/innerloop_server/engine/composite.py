"""Several engines as one: each bundle goes to the engine of its backend."""

from collections.abc import Mapping
from pathlib import Path

from innerloop_learner.signatures import TrustedKeys
from innerloop_server.backends import Backend, Backends
from innerloop_server.engine.interface import Engine, LoadedModel, Worker


class CompositeEngine(Engine):
    """Engines of several backends on one machine, which share the lanes.

    Args:
        engines: by backend.
        backends: which model is for which of them.
    """

    def __init__(self, engines: Mapping[Backend, Engine], backends: Backends) -> None:
        self._engines = engines
        self._backends = backends
        self.lanes = min(engine.lanes for engine in engines.values())
        self.threads = min(engine.threads for engine in engines.values())
        self.largest_batch = min(engine.largest_batch for engine in engines.values())
        self.compiles = any(engine.compiles for engine in engines.values())

    def start_worker(self) -> Worker | None:
        """See Engine.start_worker: at most one of the engines has its models computed by processes."""
        workers = (engine.start_worker() for engine in self._engines.values())
        return next((worker for worker in workers if worker is not None), None)

    def load(self, name: str, path: Path, keys: TrustedKeys | None = None) -> LoadedModel:
        """Load a bundle by the engine that is meant for it."""
        return self._engines[self._backends.of(name)].load(name, path, keys)

    def memory(self) -> Mapping[tuple[str, str], int]:
        """The sum of all engines' task states; other figures are the machine's, the same for each engine."""
        total: dict[tuple[str, str], int] = {}
        for engine in self._engines.values():
            for key, size in engine.memory().items():
                total[key] = total.get(key, 0) + size if key[1] == "states" else size
        return total
