"""Batches of requests to tensors that a device reads from, and tensors that it gave to answers."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from innerloop_server.domain.answers import Answers
from innerloop_server.domain.tasks import Array, SupportSet
from innerloop_server.engine.pytorch.device import Device
from innerloop_server.engine.pytorch.padding import mask, stack
from innerloop_server.engine.pytorch.state_memory import StoredState


def support_inputs(tasks: Sequence[SupportSet], device: Device) -> tuple[Tensor, ...]:
    """Inputs [T, S, *input], targets [T, S, ...], mask [T, S] and ways [T], padded to the largest support set."""
    count = device.padded(len(tasks))
    longest = device.padded(max(task.size for task in tasks))
    return (
        stack([task.x for task in tasks], count, longest, device.empty),
        stack([task.y for task in tasks], count, longest, device.empty),
        mask([task.size for task in tasks], count, longest, device.empty),
        stack([np.full(1, task.ways) for task in tasks], count, 1, device.empty).flatten(),
    )


def query_inputs(queries: Sequence[Array], device: Device) -> tuple[Tensor, Tensor]:
    """Inputs [T, Q, *input] and mask [T, Q], padded to the largest number of queries."""
    count = device.padded(len(queries))
    longest = device.padded(max(len(query) for query in queries))
    return (
        stack(queries, count, longest, device.empty),
        mask([len(query) for query in queries], count, longest, device.empty),
    )


def answers_in(outputs: Sequence[Array], queries: Sequence[Array], states: Sequence[StoredState]) -> list[Answers]:
    """Each task's answers, which are views of what `Computation.predict` returned for the batch.

    Args:
        outputs: logits and probabilities [T, Q, W], or values [T, Q, D].
        queries: of each task.
        states: of each task.
    """
    sizes = [len(query) for query in queries]
    if len(outputs) == 1:
        return [Answers(values=outputs[0][task, :size]) for task, size in enumerate(sizes)]
    return [
        Answers(*(array[task, :size, : state.ways] for array in outputs))
        for task, (size, state) in enumerate(zip(sizes, states, strict=True))
    ]
