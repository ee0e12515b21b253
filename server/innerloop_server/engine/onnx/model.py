"""One bundle's ONNX graphs on a device: runs them on batches of requests, and gives back their results."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from innerloop_learner.manifest import ADAPT, PREDICT, Manifest
from innerloop_learner.run_limit import RunStoppedError, stopping_runs
from innerloop_learner.traits import Traits
from innerloop_server.domain.answers import Answers
from innerloop_server.domain.tasks import Array, SupportSet
from innerloop_server.engine.description import describe
from innerloop_server.engine.interface import (
    AbandonedError,
    AdaptedTask,
    Batch,
    BatchResult,
    LoadedModel,
    LoadError,
    MemoryFullError,
    PredictBatch,
    StateMismatchError,
    TaskState,
    adapted_tasks,
)
from innerloop_server.engine.onnx.device import OnnxDevice, Session, Tensors
from innerloop_server.engine.onnx.state_bytes import from_bytes, to_bytes
from innerloop_server.engine.onnx.states import OnnxState, OnnxStates
from innerloop_server.engine.padding import mask, stack
from innerloop_server.engine.query_chunks import query_chunks
from innerloop_server.engine.trial_task import trial_support, try_model

STATE = "state."
X = "support_x"
SUPPORT = (X, "support_y", "support_mask", "ways", "steps")
QUERY, LOSSES, WEIGHTS = "query_x", "losses", "example_weights"
CLASSES, VALUES = ["logits", "probabilities"], ["values"]
INPUT_TYPES = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}
"""ONNX Runtime's names of the element types of inputs."""


class OnnxModel(LoadedModel):
    """A bundle's graphs, a session for each.

    Args:
        name: name of the model, by which callers ask for it.
        manifest: manifest of the bundle.
        traits: properties of the bundle's learner.
        files: content of the bundle's files, by name.
        device: device that runs the graphs.
        states: memory for task states.

    Raises:
        LoadError: the graphs can't be loaded, or do not fit the manifest.
    """

    def __init__(
        self,
        name: str,
        manifest: Manifest,
        traits: Traits,
        files: Mapping[str, bytes],
        device: OnnxDevice,
        states: OnnxStates,
    ) -> None:
        self.name = name
        self.description = describe(manifest, replace(traits, extends=False))  # there is no graph for that
        self.calibration = manifest.calibration
        self.states_on_host = device.in_host_memory
        self._device = device
        self._states = states
        self._adapting, self._predicting = device.session(files[ADAPT]), device.session(files[PREDICT])
        self._answers = VALUES if manifest.learner.task_kind == "regression" else CLASSES
        given, made = _names(self._adapting.get_inputs()), _names(self._adapting.get_outputs())
        asked, answered = _names(self._predicting.get_inputs()), _names(self._predicting.get_outputs())
        self._taken = given
        self._kept = [name for name in asked if name != QUERY]  # outputs that predicting never reads are not kept
        self._read = [name for name in made if name in (LOSSES, WEIGHTS)]
        fits = {*given} <= {*SUPPORT} and {*self._kept} <= {*made} and {*self._answers} <= {*answered}
        if not fits or not self._kept or not all(name.startswith(STATE) for name in self._kept):
            raise LoadError(f"{ADAPT} and {PREDICT} do not fit together")
        self._check(traits)

    def _check(self, traits: Traits) -> None:
        """Refuse graphs whose inputs or steps are not those in the manifest."""
        wanted = (INPUT_TYPES[self.description.input_dtype], self.description.input_shape)
        for name, file, session in ((X, ADAPT, self._adapting), (QUERY, PREDICT, self._predicting)):
            if [(end.type, tuple(end.shape[2:])) for end in session.get_inputs() if end.name == name] != [wanted]:
                raise LoadError(f"{file} takes other inputs than its manifest says")
        if ("steps" in self._taken) != bool(traits.max_steps):
            raise LoadError(f"{ADAPT} takes {'no ' if traits.max_steps else ''}steps, but its manifest says otherwise")

    def prepare(self) -> None:
        """Try both graphs, and run them on tasks like those of training, in batches of all usual sizes.

        Raises:
            LoadError: see `try_model`.
        """
        try_model(self)
        support, steps = trial_support(self.description), self.description.traits.default_steps
        width = self.description.head_width(support.ways)
        size = 1
        while size <= self._device.usual_batch:
            try:
                states = [adapted.state for adapted in self.adapt([support] * size, steps, width)]
            except MemoryFullError:  # such large batches will fail for callers too, so there is nothing to prepare
                break
            self.predict(states, [support.x[:1]] * size)
            size *= 2

    def compile(self) -> None:
        """Do nothing, because graphs are optimised when they are loaded."""

    def adapt(self, tasks: Sequence[SupportSet], steps: int, width: int, *, alone: bool = True) -> list[AdaptedTask]:
        """Learn a batch of tasks, padded to the largest. States are as wide as the most ways of a task in the batch."""
        del width, alone
        inputs = self._support(tasks, steps)
        outputs = self._device.run(self._adapting, inputs, {}, self._kept, self._read)
        states = self._states.put(outputs.kept, [task.ways for task in tasks])
        read, nothing = dict(zip(self._read, outputs.read, strict=True)), np.empty((len(tasks), 0), np.float32)
        # A loop of no rounds gives losses without a tasks dimension.
        losses = read.get(LOSSES, nothing) if steps else nothing
        return adapted_tasks(states, losses, read.get(WEIGHTS, nothing), tasks)

    def compute(self, batch: Batch, *, alone: bool) -> BatchResult:
        """See LoadedModel.compute: adapting ends between two operators when nobody waits for a batch any more."""
        if isinstance(batch, PredictBatch):
            return super().compute(batch, alone=alone)
        try:
            with stopping_runs(batch.abandoned):
                return super().compute(batch, alone=alone)
        except RunStoppedError:
            raise AbandonedError from None

    def predict(self, states: Sequence[TaskState], queries: Sequence[Array], *, alone: bool = True) -> list[Answers]:
        """Answer a batch of tasks, padded to the one with most queries."""
        del alone
        own = [state for state in states if isinstance(state, OnnxState)]
        count = self._device.padded(len(queries))
        longest = self._device.padded(max(len(query) for query in queries))
        x = self._raw(stack(queries, count, longest))
        with self._states.claimed(own) as tensors:
            arrays = self._in_chunks(self._device.join(tensors, count), x)
        sizes = [len(query) for query in queries]
        if self._answers is VALUES:
            return [Answers(values=arrays[0][task, :size]) for task, size in enumerate(sizes)]
        return [
            Answers(*(array[task, :size, : state.ways] for array in arrays))
            for task, (size, state) in enumerate(zip(sizes, own, strict=True))
        ]

    def export_state(self, state: TaskState) -> bytes:
        """See LoadedModel.export_state."""
        (own,) = [each for each in (state,) if isinstance(each, OnnxState)]
        return to_bytes(self.state_tensors(own), own.ways)

    def import_state(self, content: bytes) -> TaskState:
        """See LoadedModel.import_state."""
        tensors, ways = from_bytes(content)
        if [*tensors] != self._kept or any(tensor.shape[:1] != (1,) for tensor in tensors.values()):
            raise StateMismatchError("its tensors are not those of this model's graphs")
        return self._states.put(self._device.from_host(tensors), [ways])[0]

    def state_tensors(self, state: TaskState) -> dict[str, Array]:
        """See LoadedModel.state_tensors."""
        (own,) = [each for each in (state,) if isinstance(each, OnnxState)]
        with self._states.claimed([own]) as (tensors,):
            return dict(self._device.to_host(tensors))

    def _in_chunks(self, state: Tensors, x: Array) -> list[Array]:
        """Answer queries [T, Q, *input], a limited number at a time."""
        answered = [
            self._device.run(
                self._predicting, {QUERY: np.ascontiguousarray(x[:, chunk])}, state, [], self._answers
            ).read
            for chunk in query_chunks(*x.shape[:2])
        ]
        if len(answered) == 1:
            return answered[0]
        return [np.concatenate(each, axis=1) for each in zip(*answered, strict=True)]

    def _support(self, tasks: Sequence[SupportSet], steps: int) -> dict[str, Array]:
        """The inputs that this adapt graph takes."""
        count = self._device.padded(len(tasks))
        longest = self._device.padded(max(task.size for task in tasks))
        inputs = {
            X: self._raw(stack([task.x for task in tasks], count, longest)),
            "support_y": stack([task.y for task in tasks], count, longest),
            "support_mask": mask([task.size for task in tasks], count, longest),
            "ways": stack([np.full(1, task.ways) for task in tasks], count, 1)[:, 0],
            "steps": np.array(steps),
        }
        return {name: inputs[name] for name in self._taken}

    def _raw(self, x: Array) -> Array:
        """Convert inputs to the element type that the graphs take, which is that of the training data."""
        if x.dtype == self.description.input_dtype:
            return x
        return np.rint(x).astype(np.uint8) if self.description.input_dtype == "uint8" else x.astype(np.float32)


def _names(ends: Session) -> list[str]:
    return [end.name for end in ends]
