"""Messages between the engine's process and its workers. Tensors lie in shared memory."""

from typing import Any

import msgspec

from innerloop_learner.layers import TaskConvolution
from innerloop_server.engine.pytorch.state_layout import PlainShapes
from innerloop_server.ipc.arrays import ArrayAt

LONGEST_REASON = 2**12
"""Most characters of the reason for a failure; longer reasons are cut."""


class LoadOrder(msgspec.Struct, frozen=True, tag=True):
    """Take up a model; a descriptor of memory that holds its parameters comes with it. It is not replied to.

    Attributes:
        model: number by which orders name it.
        spec: of its learner, as JSON data.
        precision: as in `Computation`.
        params: where the parameters lie in that memory.
    """

    model: int
    spec: dict[str, Any]
    precision: str
    params: dict[str, ArrayAt]


class ForgetOrder(msgspec.Struct, frozen=True, tag=True):
    """A model will not be asked for again. It is not replied to."""

    model: int


class AskedGroup(msgspec.Struct, frozen=True, array_like=True):
    """Queries that some tasks of an AdaptOrder bring: indices of the tasks, inputs [T, Q, ...], mask [T, Q]."""

    members: tuple[int, ...]
    inputs: tuple[ArrayAt, ...]


class AdaptOrder(msgspec.Struct, frozen=True, tag=True):
    """Learn tasks, and answer the queries that they bring; arguments as those of `Computation.adapt`."""

    model: int
    task_convolution: TaskConvolution | None
    inputs: tuple[ArrayAt, ...]
    steps: int
    width: int
    groups: tuple[AskedGroup, ...]


class ExtendOrder(msgspec.Struct, frozen=True, tag=True):
    """Learn more examples into states; arguments as those of `Computation.extend`. Replied to as an AdaptOrder is."""

    model: int
    task_convolution: TaskConvolution | None
    inputs: tuple[ArrayAt, ...]
    layout: PlainShapes
    steps: int
    width: int


class LeaveOutOrder(msgspec.Struct, frozen=True, tag=True):
    """Answer examples by tasks without them; arguments as those of `Computation.left_out`."""

    model: int
    task_convolution: TaskConvolution | None
    inputs: tuple[ArrayAt, ...]
    steps: int
    width: int


class PredictOrder(msgspec.Struct, frozen=True, tag=True):
    """Answer queries; arguments as those of `Computation.predict`."""

    model: int
    task_convolution: TaskConvolution | None
    inputs: tuple[ArrayAt, ...]
    layout: PlainShapes


Order = LoadOrder | ForgetOrder | AdaptOrder | ExtendOrder | LeaveOutOrder | PredictOrder


class Started(msgspec.Struct, frozen=True, tag=True):
    """The process can compute."""


class Adapted(msgspec.Struct, frozen=True, tag=True):
    """An AdaptOrder or an ExtendOrder was carried out.

    Attributes:
        outputs: states, losses and weights of examples, as `Computation.adapt` returns them.
        layout: of the states.
        answers: to each group of queries.
        adapt_seconds, predict_seconds: that learning and answering took.
    """

    outputs: tuple[ArrayAt, ...]
    layout: PlainShapes
    answers: tuple[tuple[ArrayAt, ...], ...]
    adapt_seconds: float
    predict_seconds: float


class Predicted(msgspec.Struct, frozen=True, tag=True):
    """A PredictOrder or a LeaveOutOrder was carried out: where the answers lie, and the seconds that it took."""

    answers: tuple[ArrayAt, ...]
    seconds: float


class Abandoned(msgspec.Struct, frozen=True, tag=True):
    """An order was not carried out to its end, because nobody waits for it any more."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """An order could not be carried out."""

    why: str


Reply = Started | Adapted | Predicted | Abandoned | Failed
