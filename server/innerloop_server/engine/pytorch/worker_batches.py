"""Batches of a PyTorch model on their way to a worker process, and what the worker computed on its way back.

States stay in this process: a worker is sent copies of those that it predicts with, and sends back those that it made.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from innerloop_server.domain.answers import Answers
from innerloop_server.domain.tasks import Array, SupportSet
from innerloop_server.domain.timings import Operation
from innerloop_server.engine.interface import (
    AdaptBatch,
    AdaptedTask,
    BatchResult,
    ExtendBatch,
    LeaveOutBatch,
    PredictBatch,
    adapted_tasks,
    in_task_order,
)
from innerloop_server.engine.pytorch.batch_inputs import (
    answers_in,
    left_out_in,
    part_inputs,
    query_inputs,
    support_inputs,
)
from innerloop_server.engine.pytorch.computation import Computation
from innerloop_server.engine.pytorch.device import Device
from innerloop_server.engine.pytorch.state_layout import StateLayout, from_plain, to_plain
from innerloop_server.engine.pytorch.state_memory import StoredState
from innerloop_server.engine.pytorch.worker import TorchWorker
from innerloop_server.engine.pytorch.worker_messages import (
    Adapted,
    AdaptOrder,
    AskedGroup,
    ExtendOrder,
    LeaveOutOrder,
    Predicted,
    PredictOrder,
)
from innerloop_server.ipc.arrays import ArrayAt, end_of

Keep = Callable[[StateLayout, torch.Tensor], list[StoredState]]
"""Keeps states [T, words] of a layout."""


def send_adapt(batch: AdaptBatch, computation: Computation, device: Device, worker: TorchWorker) -> None:
    """Write support sets and the queries that they bring to the shared memory, and have the worker learn and answer.

    Raises:
        WorkerError: it can't.
    """
    model = worker.number_of(computation)
    inputs = worker.write([tensor.numpy() for tensor in support_inputs(batch.tasks, device)])
    groups: list[AskedGroup] = []
    for group in batch.groups:
        queries = [tensor.numpy() for tensor in query_inputs(group.queries, device)]
        after = end_of(groups[-1].inputs if groups else inputs)
        groups.append(AskedGroup(tuple(group.members), worker.write(queries, after)))
    worker.send(AdaptOrder(model, computation.task_convolution, inputs, batch.steps, batch.width, tuple(groups)))


def take_adapted(
    batch: AdaptBatch, reply: Adapted, computation: Computation, worker: TorchWorker, keep: Keep
) -> BatchResult:
    """The states and answers that the worker computed."""
    adapted, states = _adapted(batch.tasks, reply, computation, worker, keep)
    if not batch.groups:
        return BatchResult(adapted, [], {Operation.ADAPT: reply.adapt_seconds})
    answered = [
        _answers(places, group.queries, [states[member] for member in group.members], worker)
        for group, places in zip(batch.groups, reply.answers, strict=True)
    ]
    seconds = {Operation.ADAPT: reply.adapt_seconds, Operation.PREDICT: reply.predict_seconds}
    return BatchResult(adapted, in_task_order(batch, answered), seconds)


def send_extend(
    batch: ExtendBatch,
    rows: Array,
    layout: StateLayout,
    computation: Computation,
    device: Device,
    worker: TorchWorker,
) -> None:
    """Write states [T, words] and more examples to the shared memory, and have the worker learn these.

    Raises:
        WorkerError: it can't.
    """
    model = worker.number_of(computation)
    examples = [tensor.numpy() for tensor in support_inputs(batch.tasks, device)]
    inputs = worker.write([rows, *examples])
    plain = to_plain(layout.shapes)
    worker.send(ExtendOrder(model, computation.task_convolution, inputs, plain, batch.steps, batch.width))


def take_extended(
    batch: ExtendBatch, reply: Adapted, computation: Computation, worker: TorchWorker, keep: Keep
) -> BatchResult:
    """The states that the worker computed."""
    adapted, _ = _adapted(batch.tasks, reply, computation, worker, keep)
    return BatchResult(adapted, [], {Operation.EXTEND: reply.adapt_seconds})


def send_leave_out(batch: LeaveOutBatch, computation: Computation, device: Device, worker: TorchWorker) -> None:
    """Write support sets and their parts to the shared memory, and have the worker answer by tasks without these.

    Raises:
        WorkerError: it can't.
    """
    model = worker.number_of(computation)
    tensors = part_inputs(batch.parts, device), *support_inputs(batch.tasks, device)
    inputs = worker.write([tensor.numpy() for tensor in tensors])
    worker.send(LeaveOutOrder(model, computation.task_convolution, inputs, batch.steps, batch.width))


def take_left_out(batch: LeaveOutBatch, reply: Predicted, worker: TorchWorker) -> BatchResult:
    """The answers that the worker computed, which picking those of parts copies."""
    outputs = [worker.at(place) for place in reply.answers]
    answers = left_out_in(outputs, batch.tasks, batch.parts)
    return BatchResult([], answers, {Operation.LEAVE_OUT: reply.seconds})


def send_predict(
    batch: PredictBatch,
    rows: Array,
    layout: StateLayout,
    computation: Computation,
    device: Device,
    worker: TorchWorker,
) -> None:
    """Write states [T, words] and queries to the shared memory, and have the worker answer.

    Raises:
        WorkerError: it can't.
    """
    model = worker.number_of(computation)
    queries = [tensor.numpy() for tensor in query_inputs(batch.queries, device)]
    inputs = worker.write([rows, *queries])
    worker.send(PredictOrder(model, computation.task_convolution, inputs, to_plain(layout.shapes)))


def take_predicted(
    batch: PredictBatch, reply: Predicted, states: Sequence[StoredState], worker: TorchWorker
) -> BatchResult:
    """The answers that the worker computed."""
    answers = _answers(reply.answers, batch.queries, states, worker)
    return BatchResult([], answers, {Operation.PREDICT: reply.seconds})


def _adapted(
    tasks: Sequence[SupportSet], reply: Adapted, computation: Computation, worker: TorchWorker, keep: Keep
) -> tuple[list[AdaptedTask], list[StoredState]]:
    """What came of adapting to each task, and the states of all."""
    layout = computation.layouts.of_shapes(from_plain(reply.layout))
    rows, losses, weights = (worker.at(place) for place in reply.outputs)
    states = keep(layout, torch.from_numpy(rows))
    return adapted_tasks(states, losses, weights, tasks), states


def _answers(
    places: Sequence[ArrayAt], queries: Sequence[Array], states: Sequence[StoredState], worker: TorchWorker
) -> list[Answers]:
    # Copied: the worker's next answers will lie where these do.
    return answers_in([np.array(worker.at(place)) for place in places], queries, states)
