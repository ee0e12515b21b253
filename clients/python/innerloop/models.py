"""A server's descriptions of its models."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from innerloop.v1 import model_pb2 as pb
from innerloop.v1.tensor_pb2 import DataType

ModelState = Literal["loading", "ready", "failed", "unspecified"]
TaskKind = Literal["classification", "regression", "unspecified"]
InputKind = Literal["tensor", "text", "audio", "unspecified"]
WaysCanChange = Literal["no", "fewer", "any", "unspecified"]


class TaskLimits(NamedTuple):
    """Sizes of tasks: those trained for (zero where the word does not apply), and the largest that are taken.

    `max_text_bytes` is that of one text in UTF-8; zero for models that take no texts. `max_request_bytes` is that of
    one request, whatever it carries; zero where the server does not say. `max_audio_seconds` is that of one recording;
    zero for models that take no audio.
    """

    trained_ways: int
    trained_shots: int
    trained_steps: int
    max_ways: int
    max_support: int
    max_query: int
    max_steps: int
    max_text_bytes: int
    max_request_bytes: int
    max_audio_seconds: int


class Metric(NamedTuple):
    """A figure measured when the model was evaluated, with the half width of its 95% confidence interval."""

    name: str
    value: float
    confidence_interval: float
    protocol: str


class ModelVersion(NamedTuple):
    """A version of a model.

    `folder` is empty where the model's folder is a bundle itself. `version` is the short form of `digest`; both are
    empty while the version is not loaded. `error` says why a failed one was refused.
    """

    folder: str
    version: str
    digest: str
    state: ModelState
    error: str


class ModelAlias(NamedTuple):
    """A name for a version of a model.

    It points to `version`, and to `wanted`, unless that is empty, as soon as that one is ready. `percent` is the share
    of callers who get the alias `canary` when they ask for the model's bare name.
    """

    name: str
    version: str
    wanted: str
    percent: float


@dataclass(frozen=True)
class Model:
    """A model on a server.

    Attributes:
        name: what requests call it.
        version: of the bundle it was loaded from.
        state: whether it can be used.
        method: how it learns, for example "protonet".
        task_kind: classification or regression.
        input_shape: of one example; images are (channels, height, width); empty for texts.
        input_data_type: element type it was trained on; uint8 is normalised on the server.
        target_size: regression: values per example.
        limits: sizes of tasks.
        metrics: what it reached when it was evaluated.
        digest: SHA-256 of the bundle.
        error: why a failed model was refused, or the bundle that was to replace a ready one.
        ways_can_change: which numbers of classes other than the trained one it takes.
        order_matters: whether the order of support examples changes answers.
        gradients_at_serving: whether adapting computes gradients, as inner steps do.
        input_kind: whether examples are texts, recordings ("audio"), or tensors and images.
        sample_rate: audio: samples a second that it hears, `input_shape[0]` of them in all; zero for other models.
        versions: all versions of the model, oldest first; the attributes above describe one of them.
        aliases: names for versions, `stable` among them.
        extends: whether an adaptation can learn more examples without those before.
        calibrated: whether its answers say how sure they are: see `Prediction.known` and `coverage`.
    """

    name: str
    version: str
    state: ModelState
    method: str
    task_kind: TaskKind
    input_shape: tuple[int, ...]
    input_data_type: str
    target_size: int
    limits: TaskLimits
    metrics: tuple[Metric, ...]
    digest: str
    error: str
    ways_can_change: WaysCanChange
    order_matters: bool
    gradients_at_serving: bool
    input_kind: InputKind
    sample_rate: int
    versions: tuple[ModelVersion, ...] = ()
    aliases: tuple[ModelAlias, ...] = ()
    extends: bool = False
    calibrated: bool = False

    @classmethod
    def from_message(cls, message: pb.Model) -> "Model":
        """Read the wire form."""
        limits = message.limits
        return cls(
            name=message.name,
            version=message.version,
            state=_STATES.get(message.state, "unspecified"),
            method=message.method,
            task_kind=_TASK_KINDS.get(message.task_kind, "unspecified"),
            input_shape=tuple(message.input_shape),
            input_data_type=DataType.Name(message.input_data_type).removeprefix("DATA_TYPE_").lower(),
            target_size=message.target_size,
            limits=TaskLimits(*(getattr(limits, field) for field in TaskLimits._fields)),
            metrics=tuple(Metric(m.name, m.value, m.confidence_interval, m.protocol) for m in message.metrics),
            digest=message.digest,
            error=message.error,
            ways_can_change=_WAYS_CHANGES.get(message.ways_can_change, "unspecified"),
            order_matters=message.order_matters,
            gradients_at_serving=message.gradients_at_serving,
            input_kind=_INPUT_KINDS.get(message.input_kind, "unspecified"),
            sample_rate=message.sample_rate,
            versions=tuple(
                ModelVersion(v.folder, v.version, v.digest, _STATES.get(v.state, "unspecified"), v.error)
                for v in message.versions
            ),
            aliases=tuple(ModelAlias(a.name, a.version, a.wanted, a.percent) for a in message.aliases),
            extends=message.extends,
            calibrated=message.calibrated,
        )


MigrationState = Literal["none", "running", "done", "stopped", "unspecified"]


@dataclass(frozen=True)
class Migration:
    """How far the move of a model's adaptations to another version is.

    Attributes:
        model: name of the model.
        version: folder, or else short digest, of the version that they move to.
        state: none since the server started, running, done, or stopped early.
        migrated: adaptations that were made again.
        failed: adaptations that could not be made again, and stay with the version that made them.
        without_recipe: adaptations whose examples were not kept, and which stay with the version that made them.
        examined: adaptations of the model that were looked at.
        stored: adaptations of all models that the store kept when it began.
        error: why it was stopped.
    """

    model: str
    version: str
    state: MigrationState
    migrated: int
    failed: int
    without_recipe: int
    examined: int
    stored: int
    error: str

    @classmethod
    def from_message(cls, message: pb.Migration) -> "Migration":
        """Read the wire form."""
        return cls(
            message.model,
            message.version,
            _MIGRATION_STATES.get(message.state, "unspecified"),
            message.migrated,
            message.failed,
            message.without_recipe,
            message.examined,
            message.stored,
            message.error,
        )


_MIGRATION_STATES: dict[pb.MigrationState, MigrationState] = {
    pb.MIGRATION_STATE_NONE: "none",
    pb.MIGRATION_STATE_RUNNING: "running",
    pb.MIGRATION_STATE_DONE: "done",
    pb.MIGRATION_STATE_STOPPED: "stopped",
}
_STATES: dict[pb.ModelState, ModelState] = {
    pb.MODEL_STATE_LOADING: "loading",
    pb.MODEL_STATE_READY: "ready",
    pb.MODEL_STATE_FAILED: "failed",
}
_INPUT_KINDS: dict[pb.InputKind, InputKind] = {
    pb.INPUT_KIND_TENSOR: "tensor",
    pb.INPUT_KIND_TEXT: "text",
    pb.INPUT_KIND_AUDIO: "audio",
}
_WAYS_CHANGES: dict[pb.WaysChange, WaysCanChange] = {
    pb.WAYS_CHANGE_NONE: "no",
    pb.WAYS_CHANGE_FEWER: "fewer",
    pb.WAYS_CHANGE_ANY: "any",
}
_TASK_KINDS: dict[pb.TaskKind, TaskKind] = {
    pb.TASK_KIND_CLASSIFICATION: "classification",
    pb.TASK_KIND_REGRESSION: "regression",
}
