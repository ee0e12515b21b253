"""Settings to the store that they ask for."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from innerloop_server.adaptations.stores.fallback import FallbackStore
from innerloop_server.adaptations.stores.interface import AdaptationStore
from innerloop_server.adaptations.stores.memory import MemoryStore
from innerloop_server.adaptations.stores.sqlite import SqliteStore
from innerloop_server.adaptations.stores.watched import WatchedStore
from innerloop_server.adaptations.stores.write_behind import WriteBehindStore
from innerloop_server.observability.metrics import Metrics
from innerloop_server.settings import ConfigurationError, ServerSettings

FILE = "adaptations.sqlite"


def make_store(settings: ServerSettings, metrics: Metrics, on_change: Callable[[bool], None]) -> AdaptationStore:
    """The store of a server, not opened yet.

    Args:
        settings: of the server.
        metrics: told how the store does.
        on_change: told whether it answers, when that changes.

    Raises:
        ConfigurationError: what it needs is not installed.
    """
    if settings.store == "memory":
        return MemoryStore()
    store: AdaptationStore = WatchedStore(_durable_store(settings), metrics, on_change)
    if settings.durability != "through":
        store = WriteBehindStore(store)
    return FallbackStore(store) if settings.store_failure == "memory" else store


def _durable_store(settings: ServerSettings) -> AdaptationStore:
    kind, _, rest = (settings.store or "").partition(":")
    if kind in ("redis", "rediss", "unix"):
        if not find_spec("redis"):
            raise ConfigurationError('store: redis is not installed; pip install "innerloop[redis]"')
        from innerloop_server.adaptations.stores.redis import RedisStore

        return RedisStore(str(settings.store), synchronous=settings.durability == "through")
    path = Path(rest).expanduser() if kind == "sqlite" else data_folder(settings) / FILE
    return SqliteStore(path, synchronous=settings.durability != "none")


def data_folder(settings: ServerSettings) -> Path:
    """The folder of a server's own data: what it was told, or the user's by the XDG base directory specification."""
    if settings.data_dir is not None:
        return settings.data_dir.expanduser()
    home = os.environ.get("XDG_DATA_HOME", "")
    return (Path(home) if Path(home).is_absolute() else Path.home() / ".local" / "share") / "innerloop"
