"""Models as callers may know them."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from innerloop_learner.traits import Traits
from innerloop_server.domain.errors import ModelFailedError, ModelLoadingError, ServerError

InputKind = Literal["tensor", "text", "audio"]
"""Kinds of examples: a tensor, which may be an image, a text, or a recording."""

LOADING_RETRY_SECONDS = 1.0
"""Seconds after which a request for a model that is still loading is told to come back."""


@dataclass(frozen=True)
class ModelMetric:
    """A figure measured when the model was evaluated; fields as in the wire contract."""

    name: str
    value: float
    confidence_interval: float
    protocol: str


@dataclass(frozen=True)
class ModelDescription:
    """The description of a loaded bundle.

    Attributes:
        version: short form of `digest`.
        digest: SHA-256 that identifies the bundle.
        method: registered name.
        input_kind: what examples are. Texts are packed as rows of bytes [N, L]; of recordings, a model hears samples
            [N, samples].
        input_shape: of one example; empty for texts.
        sample_rate: of recordings, in Hz; zero for others.
        input_dtype: element type of the data it was trained on.
        trained_ways, trained_shots, trained_steps: the tasks it was trained for.
        traits: what it takes and does.
        metrics: evaluated figures.
        calibrated: whether its answers say how sure they are.
    """

    version: str
    digest: str
    method: str
    input_shape: tuple[int, ...]
    input_dtype: Literal["uint8", "float32"]
    trained_ways: int
    trained_shots: int
    trained_steps: int
    traits: Traits
    metrics: tuple[ModelMetric, ...] = ()
    input_kind: InputKind = "tensor"
    sample_rate: int = 0
    calibrated: bool = False

    @property
    def input_format(self) -> str:
        """Format of inputs; those that were decoded for one model do for others of the same format."""
        shape = "x".join(map(str, self.input_shape))
        return f"{self.input_kind} {self.input_dtype} {shape} {self.sample_rate}"

    def wrong_ways(self, ways: int) -> str | None:
        """Why a task can't have so many classes, as the end of a sentence; None if it can."""
        traits = self.traits
        if ways < 2:
            return f"has {ways} class{'es' * (ways != 1)}, at least 2 are needed"
        if ways > traits.max_ways:
            return f"has {ways} classes, this model takes at most {traits.max_ways}"
        if traits.ways_can_change == "no" and ways != traits.head_ways:
            return f"has {ways} classes, this model takes exactly {traits.head_ways}"
        return None

    def head_width(self, ways: int) -> int:
        """Classes that a task state has room for: a fixed head's, or a power of two so that states have few shapes."""
        if ways == 0:
            return 0
        if self.traits.fixed_head:
            return self.traits.head_ways
        return min(1 << (ways - 1).bit_length(), self.traits.max_ways)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that is ready to serve, as a transport sees it.

    Attributes:
        name: its sub-folder's name.
        description: description of the bundle.
    """

    name: str
    description: ModelDescription

    def check_format(self, input_format: str) -> None:
        """Refuse inputs that were decoded for another format, if a model that takes another one has come meanwhile.

        Raises:
            ModelLoadingError: trying again helps.
        """
        if input_format != self.description.input_format:
            raise ModelLoadingError(self.name, LOADING_RETRY_SECONDS)


class ModelState(StrEnum):
    """The state of a model on its way to serving."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A version of a model in whatever state it is.

    Attributes:
        name: of the model.
        state: loading, ready or failed.
        description: set when ready.
        error: why it failed, or why the bundle that was to replace a ready one did; may be shown to clients.
        folder: of the version; empty where the model's folder is a bundle itself.
    """

    name: str
    state: ModelState
    description: ModelDescription | None = None
    error: str = ""
    folder: str = ""

    @property
    def digest(self) -> str:
        """The bundle's digest; empty while it isn't known."""
        return "" if self.description is None else self.description.digest

    @property
    def label(self) -> str:
        """The version as operators name it: by its folder, or else by the beginning of its digest."""
        return self.folder or ("" if self.description is None else self.description.version)

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
