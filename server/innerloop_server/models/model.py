"""One model of a server, and the states it goes through."""

from dataclasses import dataclass
from enum import StrEnum

from innerloop_server.domain.errors import ModelFailedError, ModelLoadingError, ServerError
from innerloop_server.engine.interface import LoadedModel, ModelDescription

LOADING_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that is ready, as far as a transport must know it.

    Attributes:
        name: its sub-folder's name.
        description: what the bundle says of itself.
    """

    name: str
    description: ModelDescription

    def check_digest(self, digest: str) -> None:
        """Refuse what was decoded for another bundle, which has meanwhile been replaced by this one.

        Raises:
            ModelLoadingError: trying again helps.
        """
        if digest != self.description.digest:
            raise ModelLoadingError(self.name, LOADING_RETRY_SECONDS)


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Model:
    """A model ready to compute; loading it again makes another one.

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

    @property
    def served(self) -> ServedModel:
        """What callers may know of it."""
        return ServedModel(self.name, self.loaded.description)


class ModelState(StrEnum):
    """Where a model is on its way to serving."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """What is known of one name.

    Attributes:
        name: of the model.
        state: loading, ready or failed.
        description: set when ready.
        error: why it failed; may be shown to clients.
    """

    name: str
    state: ModelState
    description: ModelDescription | None = None
    error: str = ""

    @property
    def served(self) -> ServedModel:
        """The model, ready to serve.

        Raises:
            ModelLoadingError, ModelFailedError: it can't serve.
        """
        if self.description is None:
            raise self.unavailable
        return ServedModel(self.name, self.description)

    @property
    def unavailable(self) -> ServerError:
        """Why it can't serve: ModelLoadingError or ModelFailedError."""
        if self.state is ModelState.LOADING:
            return ModelLoadingError(self.name, LOADING_RETRY_SECONDS)
        return ModelFailedError(self.name, self.error)
