"""One bundle on a PyTorch device: batches of requests to batches of tensors, and back."""

import time
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from innerloop_learner.bundle import Bundle
from innerloop_learner.layers import TASK_CONVOLUTIONS, convolve_tasks_by
from innerloop_learner.tasks import Query, Support
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
CAPTURED_QUERIES = (1, 2, 4, 8, 16, 32)


class TorchModel(LoadedModel):
    """A bundle on a PyTorch device.

    Args:
        bundle: loaded onto the device.
        device: where it computes.
        memory: where its task states lie.
        precision: of convolutions and matrix products; bfloat16 computes them in that type and keeps float32 weights.

    Attributes:
        learner: what computes. Another one with equal answers may be put in its place at any time.
        task_convolution: how tasks share a convolution, a name of `TASK_CONVOLUTIONS`; None for the device's default.
    """

    def __init__(self, bundle: Bundle, device: Device, memory: StateMemory, precision: Precision) -> None:
        self.description = _describe(bundle)
        self.learner = bundle.learner
        self.task_convolution: str | None = None
        self._params = bundle.params
        self._device = device
        self._memory = memory
        self._precision = precision
        self._layouts = StateLayouts()
        self._layout_by_size: dict[tuple[int, int], StateLayout] = {}

    def adapt(self, tasks: Sequence[SupportSet], steps: int, width: int) -> list[AdaptedTask]:
        """Learn a batch of tasks, padded to the largest of them."""
        ways = [task.ways for task in tasks]
        states: list[StoredState] = []

        def keep(rows: Tensor, *losses: Tensor) -> tuple[Tensor, ...]:
            layout = self._layout_by_size[width, inputs[0].shape[1]]
            states.extend(self._memory.put(layout, rows, ways))
            return losses

        inputs = self._stack_support(tasks)
        losses = self._device.run(self._adapt_key(inputs, steps, width), self._adapt(steps, width), inputs, keep)
        history = losses[0][: len(tasks)].tolist() if losses else [()] * len(tasks)
        return [AdaptedTask(state, tuple(row)) for state, row in zip(states, history, strict=True)]

    def predict(self, states: Sequence[TaskState], queries: Sequence[Array]) -> list[Answers]:
        """Answer a batch of tasks, padded to the one with most queries."""
        own = _stored(states)
        layout, sizes = own[0].signature, [len(query) for query in queries]
        with self._device.working():
            pages = self._memory.claim(own)
        try:
            inputs = self._stack_queries(pages, queries)
            outputs = self._device.run(self._predict_key(inputs, layout), self._predict(layout), inputs)
        finally:
            self._memory.release(own)
        arrays = [output.numpy() for output in outputs]
        if self.description.task_kind == "regression":
            return [Answers(values=arrays[0][task, :size]) for task, size in enumerate(sizes)]
        return [
            Answers(*(array[task, :size, : state.ways] for array in arrays))
            for task, (size, state) in enumerate(zip(sizes, own, strict=True))
        ]

    def prepare(self) -> None:
        """Choose what suits the device, and capture programs for the tasks that the model was trained for."""
        description = self.description
        support = made_up_support(description)
        width = description.head_width(support.ways)
        tasks, steps = [support] * min(TRIAL_TASKS, self._device.largest_batch), description.default_steps
        self.adapt([support], steps, width)
        if any(len(field.shape) == CONVOLUTION_DIMENSIONS for layout in self._layouts for field in layout.fields):
            self.task_convolution = min(TASK_CONVOLUTIONS, key=lambda form: self._seconds(form, tasks, steps, width))
        (adapted,) = self.adapt([support], steps, width)
        self.predict([adapted.state], [support.x[:1]])
        if self._device.captures:
            self._capture(support, steps, width)

    def _seconds(self, form: str, tasks: Sequence[SupportSet], steps: int, width: int) -> float:
        """How long a batch takes when its tasks share convolutions in this way."""
        self.task_convolution = form
        self.adapt(tasks, steps, width)
        started = time.perf_counter()
        self.adapt(tasks, steps, width)
        return time.perf_counter() - started

    def _capture(self, support: SupportSet, steps: int, width: int) -> None:
        """Capture both operations for all sizes of a batch; a method that can't be captured runs without."""
        (adapted,) = self.adapt([support], steps, width)
        states, tasks = _stored([adapted.state]), 1
        layout = states[0].signature
        while tasks <= self._device.largest_batch:
            inputs = self._stack_support([support] * tasks)
            self._device.capture(self._adapt_key(inputs, steps, width), self._adapt(steps, width), inputs)
            for queries in CAPTURED_QUERIES:
                query = np.zeros((queries, *support.x.shape[1:]), support.x.dtype)
                inputs = self._stack_queries(self._memory.claim(states) * tasks, [query] * tasks)
                self._device.capture(self._predict_key(inputs, layout), self._predict(layout), inputs)
                self._memory.release(states)
            tasks *= 2

    def _adapt(self, steps: int, width: int) -> Function:
        """From the tensors of a support set to packed states [T, words], and losses [T, steps] if there are steps."""

        def adapt(x: Tensor, y: Tensor, present: Tensor, ways: Tensor) -> tuple[Tensor, ...]:
            with self._computing():
                support = Support(self.learner.spec.input.normalise(x), y, present, ways, width)
                state, losses = self.learner.adapt(self._params, support, steps)
                layout = self._layouts.of(state)
                self._layout_by_size[width, x.shape[1]] = layout
                return (layout.pack(state),) if losses is None else (layout.pack(state), losses)

        return adapt

    def _predict(self, layout: StateLayout) -> Function:
        """From pages [T, P] of states and queries to logits and probabilities [T, Q, W], or to values [T, Q, D]."""

        def predict(pages: Tensor, x: Tensor, present: Tensor) -> tuple[Tensor, ...]:
            with self._computing():
                state = layout.unpack(self._memory.read(pages))
                query = Query(self.learner.spec.input.normalise(x), present)
                outputs = self._in_parts(state, query).float()
                regression = self.description.task_kind == "regression"
                return (outputs,) if regression else (outputs, outputs.softmax(-1))

        return predict

    def _in_parts(self, state: dict[str, Tensor], query: Query) -> Tensor:
        """Outputs for all queries, some at a time: they don't depend on each other, but their activations add up."""
        tasks, queries = query.mask.shape
        size = max(EXAMPLES_AT_ONCE // tasks, 1)
        if queries <= size:
            return self.learner.predict(self._params, state, query)
        parts = [slice(start, start + size) for start in range(0, queries, size)]
        return torch.cat(
            [self.learner.predict(self._params, state, Query(query.x[:, part], query.mask[:, part])) for part in parts],
            dim=1,
        )

    @contextmanager
    def _computing(self) -> Iterator[None]:
        kind = self._device.torch_device.type
        # Captured programs must not depend on what a cache holds.
        low = torch.autocast(kind, torch.bfloat16, enabled=self._precision == "bfloat16", cache_enabled=False)
        with torch.no_grad(), low, convolve_tasks_by(self.task_convolution):
            yield

    def _stack_support(self, tasks: Sequence[SupportSet]) -> tuple[Tensor, ...]:
        """Inputs, answers, mask and ways of tasks, padded to sizes that the device likes."""
        count = self._device.padded(len(tasks))
        longest = self._device.padded(max(task.size for task in tasks))
        allocate = self._device.empty
        ways = [np.full(1, task.ways) for task in tasks]
        return (
            stack([task.x for task in tasks], count, longest, allocate),
            stack([task.y for task in tasks], count, longest, allocate),
            mask([task.size for task in tasks], count, longest, allocate),
            stack(ways, count, 1, allocate).flatten(),
        )

    def _stack_queries(self, pages: Sequence[Pages], queries: Sequence[Array]) -> tuple[Tensor, ...]:
        """Pages of states, their queries and mask, padded to sizes that the device likes."""
        count = self._device.padded(len(queries))
        longest = self._device.padded(max(len(query) for query in queries))
        allocate = self._device.empty
        return (
            stack(pages, count, len(pages[0]), allocate),
            stack(queries, count, longest, allocate),
            mask([len(query) for query in queries], count, longest, allocate),
        )

    def _adapt_key(self, inputs: Sequence[Tensor], steps: int, width: int) -> Hashable:
        return self, self.learner, "adapt", steps, width, inputs[0].shape, inputs[0].dtype

    def _predict_key(self, inputs: Sequence[Tensor], layout: StateLayout) -> Hashable:
        return self, self.learner, "predict", layout, inputs[1].shape, inputs[1].dtype


def _stored(states: Sequence[TaskState]) -> list[StoredState]:
    return [state for state in states if isinstance(state, StoredState)]


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
