"""The messages between front ends and the engine process.

Tensors never travel in messages: a message says where in the shared segment they lie. Small answers are the exception.
"""

import msgspec

from innerloop_learner.calibration import TaskCalibration
from innerloop_server.domain.adaptations import Adaptation, KeepOptions
from innerloop_server.domain.callers import Caller
from innerloop_server.domain.errors import FieldViolation
from innerloop_server.domain.model_versions import ModelVersions, WantedAlias
from innerloop_server.domain.timings import Timings
from innerloop_server.domain.updates import Edits, UpdateOptions
from innerloop_server.ipc.allocator import Block
from innerloop_server.ipc.arrays import ArrayAt


class _Message(msgspec.Struct, array_like=True, tag=True):
    """A message, or a part of one that can be one of several things."""


class ArrayHere(_Message):
    """A float32 array so small that it travels in the message."""

    data: bytes
    shape: tuple[int, ...]


class Room(_Message):
    """The place in a request's block for its answers, if they fit: offset and size in bytes."""

    offset: int
    size: int


class SentTask(_Message):
    """An `AdaptTask`; `digest` names the bundle that it was decoded for."""

    model: str
    digest: str
    x: ArrayAt
    y: ArrayAt
    ways: int
    classes: tuple[str, ...]
    steps: int
    steps_chosen: bool


class Adapt(_Message):
    """Answered with `AdaptResult`."""

    caller: Caller
    task: SentTask
    keep: KeepOptions
    diagnose: bool


class Predict(_Message):
    """Answered with `SentPrediction`; `input_format` is that which the query was decoded for."""

    caller: Caller
    input_format: str
    adaptation_id: str
    query: ArrayAt
    room: Room | None


class AdaptPredict(_Message):
    """Answered with `SentPrediction`."""

    caller: Caller
    task: SentTask
    query: ArrayAt
    keep: KeepOptions | None
    room: Room | None


class Update(_Message):
    """Answered with `UpdateResult`; `input_format` is that which the examples were decoded for."""

    caller: Caller
    input_format: str
    adaptation_id: str
    edits: Edits
    x: ArrayAt
    targets: ArrayAt
    new_targets: ArrayAt
    options: UpdateOptions


class ListExamples(_Message):
    """Answered with `ListedExamples`."""

    caller: Caller
    adaptation_id: str
    diagnose: bool


class Download(_Message):
    """Answered with `PortableAdaptation`."""

    caller: Caller
    adaptation_id: str


class Look(_Message):
    """Answered with `Adaptation`."""

    caller: Caller
    adaptation_id: str


class ListAdaptations(_Message):
    """Answered with `list[Adaptation]`."""

    caller: Caller
    model: str
    before_ns: int | None
    limit: int


class Delete(_Message):
    """Answered with `Adaptation`."""

    caller: Caller
    adaptation_id: str


class ModelOf(_Message):
    """Answered with `ServedModel`."""

    caller: Caller
    adaptation_id: str


class ListModels(_Message):
    """Answered with `list[ModelVersions]`."""


class GetVersions(_Message):
    """Answered with `ModelVersions`."""

    model: str


class Load(_Message):
    """Answered with `ModelVersions`."""

    model: str


class Unload(_Message):
    """Answered with None."""

    model: str


class SetAlias(_Message):
    """Answered with `ModelVersions`."""

    model: str
    alias: str
    wanted: WantedAlias | None


class Migrate(_Message):
    """Answered with `Migration`."""

    model: str
    selector: str


class GetMigration(_Message):
    """Answered with `Migration`."""

    model: str


Operation = (
    Adapt
    | Predict
    | AdaptPredict
    | Update
    | ListExamples
    | Download
    | Look
    | ListAdaptations
    | Delete
    | ModelOf
    | ListModels
    | GetVersions
    | Load
    | Unload
    | SetAlias
    | Migrate
    | GetMigration
)


class SentAnswers(_Message):
    """`Answers`, as an engine gives them."""

    calibration: TaskCalibration | None
    logits: ArrayAt | ArrayHere | None
    probabilities: ArrayAt | ArrayHere | None
    values: ArrayAt | ArrayHere | None


class SentPrediction(_Message):
    """`PredictResult` or `AdaptPredictResult`."""

    answers: SentAnswers
    classes: tuple[str, ...]
    adaptation: Adaptation | None
    timings: Timings


class Request(_Message):
    """A front end asks.

    Attributes:
        number: names the request on this link.
        operation: what it asks for.
        deadline: on the monotonic clock, which all processes of a machine share.
        block: that its arrays lie in; the front end leaves it alone until it is told that it was released.
    """

    number: int
    operation: Operation
    deadline: float
    block: Block | None


class Cancel(_Message):
    """Nobody waits for this request any more. It is answered nevertheless."""

    number: int


class Listening(_Message):
    """A front end answers gRPC."""


class Refused(_Message):
    """A front end can't start with its configuration."""

    why: str


FromFrontEnd = Request | Cancel | Listening | Refused


class Start(_Message):
    """The first message to a front end.

    Attributes:
        settings: `ServerSettings` as JSON.
        slot: its number among the front ends; a replacement has the number of the one that it replaces.
        metrics_folder: where it keeps its metrics.
        models: those there are.
        loaded: whether every model of the folder was loaded or refused.
        store_up: whether the store of adaptations answers.
    """

    settings: str
    slot: int
    metrics_folder: str
    models: tuple[ModelVersions, ...]
    loaded: bool
    store_up: bool


class Reply(_Message):
    """The answer to a request; its type depends on the operation."""

    number: int
    result: msgspec.Raw


class Failed(_Message):
    """A request ended in an error.

    Attributes:
        number: of the request.
        kind: name of a `ServerError`; empty for a fault of the engine process.
        message: the error's; a fault's stack trace.
        retry_after: as in `ServerError`.
        violations: of an `InvalidRequestError`.
        facts: as in `ServerError`.
    """

    number: int
    kind: str
    message: str
    retry_after: float | None = None
    violations: tuple[FieldViolation, ...] = ()
    facts: dict[str, str] = {}


class Released(_Message):
    """The engine process does not read a request's block any more; comes after the answer."""

    number: int


class ModelChanged(_Message):
    """A version of a model began to load, is ready, failed or was unloaded, or an alias points elsewhere."""

    model: ModelVersions


class ModelRemoved(_Message):
    """The last version of a model was unloaded."""

    name: str


class ModelsLoaded(_Message):
    """Every model of the folder was loaded or refused."""


class StoreChanged(_Message):
    """The store of adaptations went away or came back."""

    up: bool


class Stop(_Message):
    """Stop without losing a request, then end."""


ToFrontEnd = Start | Reply | Failed | Released | ModelChanged | ModelRemoved | ModelsLoaded | StoreChanged | Stop
