"""One bundle on a PyTorch device: batches of requests to programs, and what they give back."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import structlog
from torch import Tensor

from innerloop_learner.bundle import Bundle
from innerloop_learner.layers import TASK_CONVOLUTIONS, TaskConvolution
from innerloop_server.domain.answers import Answers
from innerloop_server.domain.tasks import Array, SupportSet
from innerloop_server.engine.description import describe
from innerloop_server.engine.interface import AdaptedTask, AwaitedModel, LoadedModel, TaskState
from innerloop_server.engine.pytorch.compiling import compiled
from innerloop_server.engine.pytorch.computation import Computation, Precision
from innerloop_server.engine.pytorch.device import Device, Function, Remote
from innerloop_server.engine.pytorch.padding import mask, stack
from innerloop_server.engine.pytorch.programs import AdaptProgram, PredictProgram, Program
from innerloop_server.engine.states.copies import PageNumbers
from innerloop_server.engine.states.layout import StateLayout
from innerloop_server.engine.states.memory import StateMemory, StoredState
from innerloop_server.engine.trial_task import made_up_support
from innerloop_server.engine.waiting import finish

TRIAL_TASKS, TRIALS = 4, 3
CONVOLUTION_DIMENSIONS = 4
USUAL_QUERIES = (1, 2, 4, 8, 16, 32)

MOST_BYTES_AWAITED = 2**20
"""Of inputs and states of a batch that the event loop copies to another process and back: a millisecond at most."""


class TorchModel(LoadedModel):
    """A bundle on a PyTorch device.

    Args:
        name: that callers know it by.
        bundle: loaded onto the device.
        device: where it computes.
        memory: where its task states lie.
        precision: of convolutions and matrix products.
    """

    def __init__(self, name: str, bundle: Bundle, device: Device, memory: StateMemory, precision: Precision) -> None:
        self.name = name
        self.description = describe(bundle.manifest, bundle.learner.traits)
        self.computation = Computation(bundle.learner, bundle.params, precision)
        self._device = device
        self._memory = memory
        self._layouts: dict[tuple[int, int], StateLayout] = {}  # by width and number of examples
        self._state_bytes = 0  # of the largest so far

    def adapt(self, tasks: Sequence[SupportSet], steps: int, width: int) -> list[AdaptedTask]:
        """Learn a batch of tasks, padded to the largest of them."""
        return finish(self._adapt(self._run, tasks, steps, width))

    def predict(self, states: Sequence[TaskState], queries: Sequence[Array]) -> list[Answers]:
        """Answer a batch of tasks, padded to the one with most queries."""
        return finish(self._predict(self._run, states, queries))

    def remote(self, lane: int, tasks: int, size_bytes: int) -> AwaitedModel | None:
        """See LoadedModel.remote; None for batches so large that copying them would hold up the event loop."""
        if size_bytes + tasks * self._state_bytes > MOST_BYTES_AWAITED:
            return None
        run = self._device.remote(lane, self.computation)
        return None if run is None else AwaitedModel(partial(self._adapt, run), partial(self._predict, run))

    def expect(self, state: TaskState) -> None:
        """See LoadedModel.expect."""
        if isinstance(state, StoredState):
            self._memory.expect(state)

    async def _run(self, program: Program, then: Function | None) -> tuple[Tensor, ...]:
        return self._device.run(program, then)

    async def _adapt(self, run: Remote, tasks: Sequence[SupportSet], steps: int, width: int) -> list[AdaptedTask]:
        ways = [task.ways for task in tasks]
        states: list[StoredState] = []

        def keep(rows: Tensor, *losses: Tensor) -> tuple[Tensor, ...]:
            states.extend(self._memory.put(program.layout, rows, ways))
            self._state_bytes = max(self._state_bytes, states[0].size_bytes)
            return losses

        program = self._adapting(tasks, steps, width)
        losses = await run(program, keep)
        history = losses[0][: len(tasks)].tolist() if losses else [()] * len(tasks)
        return [AdaptedTask(state, tuple(row)) for state, row in zip(states, history, strict=True)]

    async def _predict(self, run: Remote, states: Sequence[TaskState], queries: Sequence[Array]) -> list[Answers]:
        own = [state for state in states if isinstance(state, StoredState)]
        with self._claimed(own) as pages:
            outputs = await run(self._predicting(own[0].signature, pages, queries), None)
        arrays, sizes = [output.numpy() for output in outputs], [len(query) for query in queries]
        if self.description.traits.task_kind == "regression":
            return [Answers(values=arrays[0][task, :size]) for task, size in enumerate(sizes)]
        return [
            Answers(*(array[task, :size, : state.ways] for array in arrays))
            for task, (size, state) in enumerate(zip(sizes, own, strict=True))
        ]

    def prepare(self) -> None:
        """Choose what suits the device, and capture programs for tasks like those that the model was trained for."""
        support, steps = made_up_support(self.description), self.description.traits.default_steps
        width = self.description.head_width(support.ways)
        (adapted,) = self.adapt([support], steps, width)
        self.predict([adapted.state], [support.x[:1]])
        shapes = [shape for layout in self._layouts.values() for _, shape, _ in layout.shapes]
        if any(len(shape) == CONVOLUTION_DIMENSIONS for shape in shapes):
            with self._device.undisturbed():
                self._choose_task_convolution([support] * min(TRIAL_TASKS, self._device.largest_batch), steps, width)
        if not self._device.captures:
            return
        refused: dict[str, str] = {}
        for program in self._usual_programs():
            try:
                self._device.capture(program, self.computation.learner)
            except RuntimeError as error:  # what asks the host for something can't be captured: it runs without
                refused.setdefault(program.operation, str(error))
        for operation, reason in refused.items():
            method = self.description.method
            structlog.get_logger().warning("not captured", method=method, operation=operation, reason=reason)

    def compile(self) -> None:
        """Compile the backbone for usual batches, and run those by it from then on; others are never held up."""
        twin = compiled(self.computation.learner)
        for program in self._usual_programs():
            with self._device.beside():  # it takes seconds or minutes, and requests go on meanwhile
                program.run(twin, *(tensor.to(self._device.torch_device) for tensor in program.inputs))
            self._device.capture(program, twin)
            self.computation.compiled[program.key] = twin

    def _choose_task_convolution(self, tasks: Sequence[SupportSet], steps: int, width: int) -> None:
        """Take the form of convolution that is fastest here, by the best of a few trials."""
        self.computation.threads = 1  # as many as a batch of several gets
        try:
            self.computation.convolve_tasks_by(self._fastest_task_convolution(tasks, steps, width))
        finally:
            self.computation.threads = None

    def _fastest_task_convolution(self, tasks: Sequence[SupportSet], steps: int, width: int) -> TaskConvolution:
        best = dict.fromkeys(TASK_CONVOLUTIONS, float("inf"))
        for _ in range(TRIALS):
            for form in best:
                self.computation.convolve_tasks_by(form)
                started = time.perf_counter()
                self.adapt(tasks, steps, width)
                best[form] = min(best[form], time.perf_counter() - started)
        return min(best, key=lambda form: best[form])

    def _usual_programs(self) -> Iterator[Program]:
        """Both operations, on tasks like those that the model was trained for, for all sizes of a batch."""
        support, steps = made_up_support(self.description), self.description.traits.default_steps
        width = self.description.head_width(support.ways)
        (state,) = (adapted.state for adapted in self.adapt([support], steps, width))
        if not isinstance(state, StoredState):
            return
        size = 1
        while size <= self._device.usual_batch:
            yield self._adapting([support] * size, steps, width)
            with self._claimed([state]) as pages:
                for queries in USUAL_QUERIES:
                    query = np.zeros((queries, *support.x.shape[1:]), support.x.dtype)
                    yield self._predicting(state.signature, pages * size, [query] * size)
            size *= 2

    @contextmanager
    def _claimed(self, states: Sequence[StoredState]) -> Iterator[list[PageNumbers]]:
        """Page numbers of states, which stay on the device inside."""
        with self._device.working():  # states that come back are there before what is asked for next
            pages = self._memory.claim(states)
        try:
            yield pages
        finally:
            self._memory.release(states)

    def _adapting(self, tasks: Sequence[SupportSet], steps: int, width: int) -> AdaptProgram:
        count = self._device.padded(len(tasks))
        longest = self._device.padded(max(task.size for task in tasks))
        allocate = self._device.empty
        inputs = (
            stack([task.x for task in tasks], count, longest, allocate),
            stack([task.y for task in tasks], count, longest, allocate),
            mask([task.size for task in tasks], count, longest, allocate),
            stack([np.full(1, task.ways) for task in tasks], count, 1, allocate).flatten(),
        )
        return AdaptProgram(self.computation, self._layouts, steps, width, inputs)

    def _predicting(
        self, layout: StateLayout, pages: Sequence[PageNumbers], queries: Sequence[Array]
    ) -> PredictProgram:
        count = self._device.padded(len(queries))
        longest = self._device.padded(max(len(query) for query in queries))
        allocate = self._device.empty
        inputs = (
            stack(pages, count, len(pages[0]), allocate),
            stack(queries, count, longest, allocate),
            mask([len(query) for query in queries], count, longest, allocate),
        )
        return PredictProgram(self.computation, layout, self._memory, inputs)
