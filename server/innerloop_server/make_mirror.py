"""Settings to the mirror of an object store that they ask for."""

from hashlib import sha256
from importlib.util import find_spec
from typing import TYPE_CHECKING

from innerloop_server.make_store import data_folder
from innerloop_server.settings import ConfigurationError, ServerSettings

if TYPE_CHECKING:
    from innerloop_server.models.mirror import Mirror

FOLDER = "models"


def make_mirror(settings: ServerSettings) -> "Mirror | None":
    """The mirror of the store that models come from, not opened yet; None if they come from a folder.

    Raises:
        ConfigurationError: there is no such kind of store, or what it needs is not installed.
    """
    if not settings.models_are_remote:
        return None
    if not find_spec("fsspec"):
        raise ConfigurationError('models: fsspec is not installed; pip install "innerloop[s3]"')
    from innerloop_server.models.mirror import Mirror
    from innerloop_server.models.object_store import ObjectStore, ObjectStoreError, without_secrets

    try:
        store = ObjectStore(settings.models)
    except ObjectStoreError as error:
        raise ConfigurationError(f"models: {error}") from error
    # One for each store: what another one held is not served. Passwords may change.
    folder = data_folder(settings) / FOLDER / sha256(without_secrets(settings.models).encode()).hexdigest()[:16]
    return Mirror(store, folder, int(settings.model_cache_bytes), settings.max_load_seconds)
