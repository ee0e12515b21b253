"""One model of a server, and the states it goes through."""

from dataclasses import dataclass
from enum import StrEnum

from innerloop_server.engine.interface import LoadedModel, ModelDescription


@dataclass(frozen=True, eq=False, slots=True)
class Model:
    """A model ready to serve; loading it again makes another one.

    Attributes:
        name: its sub-folder's name.
        loaded: the bundle on the engine's device.
    """

    name: str
    loaded: LoadedModel

    @property
    def description(self) -> ModelDescription:
        """What the bundle says of itself."""
        return self.loaded.description


class ModelState(StrEnum):
    """Where a model is on its way to serving."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """What the repository knows of one name.

    Attributes:
        name: of the model.
        state: loading, ready or failed.
        model: set when ready.
        error: why it failed; may be shown to clients.
    """

    name: str
    state: ModelState
    model: Model | None = None
    error: str = ""
