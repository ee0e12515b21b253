"""One bundle on a PyTorch device: batches of requests to batches of tensors, and back."""

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import structlog
import torch
from torch import Tensor

from innerloop_learner.bundle import Bundle
from innerloop_learner.layers import TASK_CONVOLUTIONS, convolve_tasks_by
from innerloop_learner.learner import Learner
from innerloop_learner.tasks import Query, Support
from innerloop_server.engine.compiling import compiled
from innerloop_server.engine.devices import Device, Function
from innerloop_server.engine.interface import (
    AdaptedTask,
    Answers,
    Array,
    LoadedModel,
    ModelDescription,
    ModelMetric,
    SupportSet,
    TaskState,
)
from innerloop_server.engine.made_up import made_up_support
from innerloop_server.engine.padding import mask, stack
from innerloop_server.engine.state_layout import StateLayout, StateLayouts
from innerloop_server.engine.state_memory import Pages, StateMemory, StoredState

Precision = Literal["float32", "tf32", "bfloat16"]

EXAMPLES_AT_ONCE = 2048
TRIAL_TASKS = 4
CONVOLUTION_DIMENSIONS = 4
USUAL_QUERIES = (1, 2, 4, 8, 16, 32)


class TorchModel(LoadedModel):
    """A bundle on a PyTorch device.

    Args:
        bundle: loaded onto the device.
        device: where it computes.
        memory: where its task states lie.
        precision: of convolutions and matrix products; bfloat16 computes them in that type and keeps float32 weights.

    Attributes:
        task_convolution: how tasks share a convolution, a name of `TASK_CONVOLUTIONS`; None for the device's default.
    """

    def __init__(self, bundle: Bundle, device: Device, memory: StateMemory, precision: Precision) -> None:
        self.description = _describe(bundle)
        self._learner = bundle.learner
        self.task_convolution: str | None = None
        self._params = bundle.params
        self._device = device
        self._memory = memory
        self._precision = precision
        self._layouts = StateLayouts()
        self._layout_by_size: dict[tuple[int, int], StateLayout] = {}
        self._compiled: dict[Hashable, Learner] = {}

    def adapt(self, tasks: Sequence[SupportSet], steps: int, width: int) -> list[AdaptedTask]:
        """Learn a batch of tasks, padded to the largest of them."""
        ways = [task.ways for task in tasks]
        states: list[StoredState] = []

        def keep(rows: Tensor, *losses: Tensor) -> tuple[Tensor, ...]:
            layout = self._layout_by_size[width, program.inputs[0].shape[1]]
            states.extend(self._memory.put(layout, rows, ways))
            return losses

        program = self._adapting(tasks, steps, width)
        losses = self._run(program, keep)
        history = losses[0][: len(tasks)].tolist() if losses else [()] * len(tasks)
        return [AdaptedTask(state, tuple(row)) for state, row in zip(states, history, strict=True)]

    def predict(self, states: Sequence[TaskState], queries: Sequence[Array]) -> list[Answers]:
        """Answer a batch of tasks, padded to the one with most queries."""
        own = [state for state in states if isinstance(state, StoredState)]
        with self._device.working():
            pages = self._memory.claim(own)
        try:
            outputs = self._run(self._predicting(own[0].signature, pages, queries))
        finally:
            self._memory.release(own)
        arrays, sizes = [output.numpy() for output in outputs], [len(query) for query in queries]
        if self.description.task_kind == "regression":
            return [Answers(values=arrays[0][task, :size]) for task, size in enumerate(sizes)]
        return [
            Answers(*(array[task, :size, : state.ways] for array in arrays))
            for task, (size, state) in enumerate(zip(sizes, own, strict=True))
        ]

    def prepare(self) -> None:
        """Choose what suits the device, and capture programs for tasks like those that the model was trained for."""
        support, steps = made_up_support(self.description), self.description.default_steps
        width = self.description.head_width(support.ways)
        (adapted,) = self.adapt([support], steps, width)
        self.predict([adapted.state], [support.x[:1]])
        if any(len(field.shape) == CONVOLUTION_DIMENSIONS for layout in self._layouts for field in layout.fields):
            tasks = [support] * min(TRIAL_TASKS, self._device.largest_batch)
            self.task_convolution = min(TASK_CONVOLUTIONS, key=lambda form: self._seconds(form, tasks, steps, width))
        if self._device.captures:
            self._capture()

    def _capture(self) -> None:
        try:
            for program in self._usual_programs():
                self._device.capture(program.key, partial(program.function, self._learner), program.inputs)
        except RuntimeError as error:  # what asks the host for something can't be captured: it runs without
            structlog.get_logger().warning("programs not captured", method=self.description.method, reason=str(error))

    def compile(self) -> None:
        """Compile the backbone for usual batches, and run those by it from then on; others are never held up."""
        twin = compiled(self._learner)
        for program in self._usual_programs():
            self._device.run(None, partial(program.function, twin), program.inputs)
            if self._device.captures:
                self._device.capture(program.key, partial(program.function, twin), program.inputs)
            self._compiled[program.key] = twin

    def _seconds(self, form: str, tasks: Sequence[SupportSet], steps: int, width: int) -> float:
        """How long a batch takes when its tasks share convolutions in this way."""
        self.task_convolution = form
        self.adapt(tasks, steps, width)
        started = time.perf_counter()
        self.adapt(tasks, steps, width)
        return time.perf_counter() - started

    def _usual_programs(self) -> Iterator["_Program"]:
        """Both operations, on tasks like those that the model was trained for, for all sizes of a batch."""
        support, steps = made_up_support(self.description), self.description.default_steps
        width = self.description.head_width(support.ways)
        (state,) = (adapted.state for adapted in self.adapt([support], steps, width))
        if not isinstance(state, StoredState):
            return
        size = 1
        while size <= self._device.usual_batch:
            yield self._adapting([support] * size, steps, width)
            pages = self._memory.claim([state]) * size
            for queries in USUAL_QUERIES:
                query = np.zeros((queries, *support.x.shape[1:]), support.x.dtype)
                yield self._predicting(state.signature, pages, [query] * size)
            self._memory.release([state])
            size *= 2

    def _run(self, program: "_Program", then: Function | None = None) -> tuple[Tensor, ...]:
        learner = self._compiled.get(program.key, self._learner)
        return self._device.run(program.key, partial(program.function, learner), program.inputs, then)

    def _adapting(self, tasks: Sequence[SupportSet], steps: int, width: int) -> "_Program":
        """From a support set to packed states [T, words], and losses [T, steps] if there are steps."""

        def adapt(learner: Learner, x: Tensor, y: Tensor, present: Tensor, ways: Tensor) -> tuple[Tensor, ...]:
            with self._computing():
                support = Support(learner.spec.input.normalise(x), y, present, ways, width)
                state, losses = learner.adapt(self._params, support, steps)
                layout = self._layouts.of(state)
                self._layout_by_size[width, x.shape[1]] = layout
                return (layout.pack(state),) if losses is None else (layout.pack(state), losses)

        count = self._device.padded(len(tasks))
        longest = self._device.padded(max(task.size for task in tasks))
        allocate = self._device.empty
        inputs = (
            stack([task.x for task in tasks], count, longest, allocate),
            stack([task.y for task in tasks], count, longest, allocate),
            mask([task.size for task in tasks], count, longest, allocate),
            stack([np.full(1, task.ways) for task in tasks], count, 1, allocate).flatten(),
        )
        return _Program((self, "adapt", steps, width, inputs[0].shape, inputs[0].dtype), adapt, inputs)

    def _predicting(self, layout: StateLayout, pages: Sequence[Pages], queries: Sequence[Array]) -> "_Program":
        """From pages of states and queries to logits and probabilities [T, Q, W], or to values [T, Q, D]."""

        def predict(learner: Learner, pages: Tensor, x: Tensor, present: Tensor) -> tuple[Tensor, ...]:
            with self._computing():
                state = layout.unpack(self._memory.read(pages))
                query = Query(learner.spec.input.normalise(x), present)
                outputs = self._in_parts(learner, state, query).float()
                regression = self.description.task_kind == "regression"
                return (outputs,) if regression else (outputs, outputs.softmax(-1))

        count = self._device.padded(len(queries))
        longest = self._device.padded(max(len(query) for query in queries))
        allocate = self._device.empty
        inputs = (
            stack(pages, count, len(pages[0]), allocate),
            stack(queries, count, longest, allocate),
            mask([len(query) for query in queries], count, longest, allocate),
        )
        return _Program((self, "predict", layout, inputs[1].shape, inputs[1].dtype), predict, inputs)

    def _in_parts(self, learner: Learner, state: dict[str, Tensor], query: Query) -> Tensor:
        """Outputs for all queries, some at a time: they don't depend on each other, but their activations add up."""
        tasks, queries = query.mask.shape
        size = max(EXAMPLES_AT_ONCE // tasks, 1)
        if queries <= size:
            return learner.predict(self._params, state, query)
        parts = [slice(start, start + size) for start in range(0, queries, size)]
        return torch.cat(
            [
                self._learner.predict(self._params, state, Query(query.x[:, part], query.mask[:, part]))
                for part in parts
            ],
            dim=1,
        )

    @contextmanager
    def _computing(self) -> Iterator[None]:
        kind = self._device.torch_device.type
        # Captured programs must not depend on what a cache holds.
        low = torch.autocast(kind, torch.bfloat16, enabled=self._precision == "bfloat16", cache_enabled=False)
        with torch.no_grad(), low, convolve_tasks_by(self.task_convolution):
            yield


class _Program(NamedTuple):
    """A function of a learner and tensors, with its inputs; programs of equal keys differ in the inputs' values."""

    key: Hashable
    function: Callable[..., tuple[Tensor, ...]]
    inputs: tuple[Tensor, ...]


def _describe(bundle: Bundle) -> ModelDescription:
    manifest, learner = bundle.manifest, bundle.learner
    limits, spec = manifest.limits, learner.spec
    fixed_head = learner.info.ways_can_change != "any"
    return ModelDescription(
        version=manifest.version,
        digest=manifest.digest,
        method=learner.info.name,
        task_kind=spec.task_kind,
        input_shape=spec.input.shape,
        input_dtype=spec.input.dtype,
        target_size=spec.target_size,
        trained_ways=limits.trained_ways,
        trained_shots=limits.trained_shots,
        trained_steps=limits.trained_steps,
        max_ways=min(limits.max_ways, spec.max_ways) if fixed_head else limits.max_ways,
        max_steps=min(limits.max_steps, learner.max_steps),
        default_steps=learner.default_steps,
        ways_can_change=learner.info.ways_can_change,
        head_ways=spec.max_ways,
        order_matters=learner.info.order_matters,
        gradients_at_serving=learner.info.gradients_at_serving,
        metrics=tuple(
            ModelMetric(metric.name, metric.value, metric.confidence_interval, metric.protocol)
            for metric in manifest.metrics
        ),
    )
