"""One bundle on a PyTorch device: batches of requests to programs, and what they give back."""

import time
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import cast

import numpy as np
import structlog
import torch
from torch import Tensor

from innerloop_learner.bundle import Bundle
from innerloop_learner.layers import TASK_CONVOLUTIONS
from innerloop_learner.learner import TaskError
from innerloop_learner.loops import Stopped, stopping
from innerloop_server.domain.answers import Answers
from innerloop_server.domain.tasks import Array, Parts, SupportSet
from innerloop_server.engine.description import describe
from innerloop_server.engine.interface import (
    AbandonedError,
    AdaptBatch,
    AdaptedTask,
    Batch,
    BatchResult,
    ExtendBatch,
    LeaveOutBatch,
    LoadedModel,
    LoadError,
    PredictBatch,
    StateMismatchError,
    TaskState,
    Worker,
    WorkerError,
    adapted_tasks,
)
from innerloop_server.engine.pytorch.batch_inputs import (
    answers_in,
    left_out_in,
    part_inputs,
    query_inputs,
    support_inputs,
)
from innerloop_server.engine.pytorch.compiling import compiled
from innerloop_server.engine.pytorch.computation import Computation, Precision
from innerloop_server.engine.pytorch.device import Device
from innerloop_server.engine.pytorch.graph_inputs import graph_inputs
from innerloop_server.engine.pytorch.padding import stack
from innerloop_server.engine.pytorch.programs import (
    AdaptProgram,
    ExtendProgram,
    LeaveOutProgram,
    PredictProgram,
    Program,
)
from innerloop_server.engine.pytorch.state_bytes import from_bytes, to_bytes
from innerloop_server.engine.pytorch.state_copies import PageNumbers, upload
from innerloop_server.engine.pytorch.state_layout import PAGE_WORDS, StateLayout
from innerloop_server.engine.pytorch.state_memory import StateMemory, StoredState
from innerloop_server.engine.pytorch.worker import TorchWorker
from innerloop_server.engine.pytorch.worker_batches import (
    send_adapt,
    send_extend,
    send_leave_out,
    send_predict,
    take_adapted,
    take_extended,
    take_left_out,
    take_predicted,
)
from innerloop_server.engine.pytorch.worker_messages import Abandoned, Adapted, Failed, Predicted, Reply
from innerloop_server.engine.trial_task import trial_support, try_model

PREPARE_SECONDS = 120.0
"""Seconds after which setting a model up is given up between two inner steps."""

TRIAL_TASKS, TRIALS = 4, 3
CONVOLUTION_DIMENSIONS = 4
USUAL_QUERIES = (1, 2, 4, 8, 16, 32)


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
        self.calibration = bundle.manifest.calibration
        self.feature_size = bundle.learner.backbone.features if bundle.learner.leaves_out else 0
        self.computation = Computation(bundle.learner, bundle.params, precision)
        self.computed_by_workers = self.states_on_host = device.torch_device.type == "cpu"
        self._device = device
        self._memory = memory
        self._layouts: dict[Hashable, StateLayout] = {}  # by width and number of examples
        self._state_bytes = 0  # of the largest so far

    def adapt(self, tasks: Sequence[SupportSet], steps: int, width: int, *, alone: bool = True) -> list[AdaptedTask]:
        """Learn a batch of tasks, padded to the largest of them."""
        ways = [task.ways for task in tasks]
        states: list[StoredState] = []

        def keep(rows: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
            states.extend(self._keep(program.layout, rows, ways))
            return others

        program = self._adapting(tasks, steps, width)
        losses, weights = self._device.run(program, keep, alone=alone)
        return adapted_tasks(states, losses.numpy(), weights.numpy(), tasks)

    def extend(
        self, states: Sequence[TaskState], tasks: Sequence[SupportSet], steps: int, width: int, *, alone: bool = True
    ) -> list[AdaptedTask]:
        """Learn more examples into a batch of states, padded to the one with most examples."""
        own, ways = _stored(states), [task.ways for task in tasks]
        made: list[StoredState] = []

        def keep(rows: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
            made.extend(self._keep(program.layout, rows, ways))
            return others

        with self._claimed(own) as pages:
            program = self._extending(own[0].signature, pages, tasks, steps, width)
            try:
                losses, weights = self._device.run(program, keep, alone=alone)
            except TaskError as error:
                raise StateMismatchError(str(error)) from error
        return adapted_tasks(made, losses.numpy(), weights.numpy(), tasks)

    def left_out(
        self, tasks: Sequence[SupportSet], parts: Sequence[Parts], steps: int, width: int, *, alone: bool = True
    ) -> list[Answers]:
        """Answer examples by a batch of tasks without them, padded to the largest and to the one with most parts."""
        inputs = part_inputs(parts, self._device), *support_inputs(tasks, self._device)
        outputs = self._device.run(LeaveOutProgram(self.computation, steps, width, inputs), alone=alone)
        return left_out_in([output.numpy() for output in outputs], tasks, parts)

    def predict(self, states: Sequence[TaskState], queries: Sequence[Array], *, alone: bool = True) -> list[Answers]:
        """Answer a batch of tasks, padded to the one with most queries."""
        own = _stored(states)
        with self._claimed(own) as pages:
            outputs = self._device.run(self._predicting(own[0].signature, pages, queries), alone=alone)
        return answers_in([output.numpy() for output in outputs], queries, own)

    def compute(self, batch: Batch, *, alone: bool) -> BatchResult:
        """See LoadedModel.compute: inner loops end between two steps when nobody waits for a batch any more."""
        if isinstance(batch, PredictBatch):
            return super().compute(batch, alone=alone)
        try:
            with stopping(batch.abandoned):
                return super().compute(batch, alone=alone)
        except Stopped:
            raise AbandonedError from None

    def export_state(self, state: TaskState) -> bytes:
        """See LoadedModel.export_state."""
        (own,) = _stored([state])
        return to_bytes(own.signature, self._row(own)[0].numpy(), own.ways)

    def state_tensors(self, state: TaskState) -> dict[str, Array]:
        """See LoadedModel.state_tensors."""
        (own,) = _stored([state])
        return graph_inputs(own.signature.unpack(self._row(own)))

    def import_state(self, content: bytes) -> TaskState:
        """See LoadedModel.import_state."""
        shapes, words, ways = from_bytes(content)
        layout = self.computation.layouts.of_shapes(shapes)
        row = np.zeros((1, layout.pages * PAGE_WORDS), np.int32)
        row[0, : layout.words] = words
        with self._device.in_order():
            return self._memory.put(layout, torch.from_numpy(row).to(self._device.torch_device), [ways])[0]

    def prefetch(self, state: TaskState) -> None:
        """See LoadedModel.prefetch."""
        if isinstance(state, StoredState):
            self._memory.request_prefetch(state)

    def bytes_to_copy(self, batch: Batch, worker: Worker) -> float:
        """See LoadedModel.bytes_to_copy: inputs and states, and the parameters if the worker doesn't know them yet."""
        states = 0
        if isinstance(batch, (ExtendBatch, PredictBatch)):
            states += sum(state.size_bytes for state in batch.states)
        if isinstance(batch, (AdaptBatch, ExtendBatch)):
            states += len(batch.tasks) * self._state_bytes
        known = cast("TorchWorker", worker).knows(self.computation)
        params = 0 if known else sum(each.nbytes for each in self.computation.params.values())
        return batch.input_bytes + states + params

    def send(self, batch: Batch, worker: Worker) -> None:
        """See LoadedModel.send."""
        self._device.use_threads(1)  # the other cores are at work for the workers
        to = cast("TorchWorker", worker)
        if isinstance(batch, AdaptBatch):
            send_adapt(batch, self.computation, self._device, to)
            return
        if isinstance(batch, LeaveOutBatch):
            send_leave_out(batch, self.computation, self._device, to)
            return
        own = _stored(batch.states)
        with self._claimed(own) as pages:
            rows = self._memory.read(torch.from_numpy(np.stack(pages))).numpy()
        if isinstance(batch, ExtendBatch):
            send_extend(batch, rows, own[0].signature, self.computation, self._device, to)
            return
        send_predict(batch, rows, own[0].signature, self.computation, self._device, to)

    def take(self, batch: Batch, reply: Reply, worker: Worker) -> BatchResult:
        """See LoadedModel.take."""
        self._device.use_threads(1)
        by = cast("TorchWorker", worker)
        match batch, reply:
            case AdaptBatch(), Adapted():
                keep = partial(self._keep, ways=[task.ways for task in batch.tasks])
                return take_adapted(batch, reply, self.computation, by, keep)
            case ExtendBatch(), Adapted():
                keep = partial(self._keep, ways=[task.ways for task in batch.tasks])
                return take_extended(batch, reply, self.computation, by, keep)
            case LeaveOutBatch(), Predicted():
                return take_left_out(batch, reply, by)
            case PredictBatch(), Predicted():
                return take_predicted(batch, reply, _stored(batch.states), by)
            case _, Abandoned():
                raise AbandonedError
            case _, Failed():
                raise WorkerError(reply.why)
        raise WorkerError(f"it replied {reply} to something else")

    def _keep(self, layout: StateLayout, rows: Tensor, ways: Sequence[int]) -> list[StoredState]:
        states = self._memory.put(layout, rows, ways)
        self._state_bytes = max(self._state_bytes, states[0].size_bytes)
        return states

    def prepare(self) -> None:
        """Try the model, choose what suits the device, and capture programs for tasks like those of training.

        Raises:
            LoadError: see `try_model`; or setting it up takes too long.
        """
        until = time.monotonic() + PREPARE_SECONDS
        try:
            with stopping(lambda: time.monotonic() >= until):
                try_model(self)
                self._set_up()
        except Stopped:
            raise LoadError(f"{self.name}: setting it up takes more than {PREPARE_SECONDS:g} s") from None

    def _set_up(self) -> None:
        support, steps = trial_support(self.description), self.description.traits.default_steps
        width = self.description.head_width(support.ways)
        (adapted,) = self.adapt([support], steps, width)
        self.predict([adapted.state], [support.x[:1]])
        shapes = [shape for layout in self._layouts.values() for _, shape, _ in layout.shapes]
        if any(len(shape) == CONVOLUTION_DIMENSIONS for shape in shapes):
            with self._device.exclusive_timing():
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
            with self._device.in_background():  # it takes seconds or minutes, and requests go on meanwhile
                program.run(twin, *(tensor.to(self._device.torch_device) for tensor in program.inputs))
            self._device.capture(program, twin)
            self.computation.compiled[program.key] = twin

    def _choose_task_convolution(self, tasks: Sequence[SupportSet], steps: int, width: int) -> None:
        """Take the form of convolution that is fastest for one of several batches, by the best of a few trials."""
        best = dict.fromkeys(TASK_CONVOLUTIONS, float("inf"))
        for _ in range(TRIALS):
            for form in best:
                self.computation.convolve_tasks_by(form)
                started = time.perf_counter()
                self.adapt(tasks, steps, width, alone=False)
                best[form] = min(best[form], time.perf_counter() - started)
        fastest = min(best, key=lambda form: best[form])
        self.computation.convolve_tasks_by(fastest)

    def _usual_programs(self) -> Iterator[Program]:
        """Both operations, on tasks like those that the model was trained for, for all sizes of a batch."""
        support, steps = trial_support(self.description), self.description.traits.default_steps
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

    def _row(self, state: StoredState) -> Tensor:
        """The words of a state [1, words], in the host's memory."""
        with self._claimed([state]) as (pages,):
            return self._device.fetch(lambda: self._memory.read(upload(pages, self._device.torch_device).unsqueeze(0)))

    @contextmanager
    def _claimed(self, states: Sequence[StoredState]) -> Iterator[list[PageNumbers]]:
        """Page numbers of states, which stay on the device inside."""
        with self._device.in_order():  # states that come back are there before what is asked for next
            pages = [place.pages for place in self._memory.claim(states)]
        try:
            yield pages
        finally:
            self._memory.release(states)

    def _adapting(self, tasks: Sequence[SupportSet], steps: int, width: int) -> AdaptProgram:
        return AdaptProgram(self.computation, self._layouts, steps, width, support_inputs(tasks, self._device))

    def _extending(
        self,
        layout: StateLayout,
        pages: Sequence[PageNumbers],
        tasks: Sequence[SupportSet],
        steps: int,
        width: int,
    ) -> ExtendProgram:
        table = stack(pages, self._device.padded(len(tasks)), len(pages[0]), self._device.empty)
        inputs = (table, *support_inputs(tasks, self._device))
        return ExtendProgram(self.computation, layout, self._memory, steps, width, inputs)

    def _predicting(
        self, layout: StateLayout, pages: Sequence[PageNumbers], queries: Sequence[Array]
    ) -> PredictProgram:
        table = stack(pages, self._device.padded(len(queries)), len(pages[0]), self._device.empty)
        return PredictProgram(self.computation, layout, self._memory, (table, *query_inputs(queries, self._device)))


def _stored(states: Sequence[TaskState]) -> list[StoredState]:
    return [state for state in states if isinstance(state, StoredState)]
