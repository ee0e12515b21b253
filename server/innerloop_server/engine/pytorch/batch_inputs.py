"""Batches of requests to tensors that a device reads from, and tensors that it gave to answers."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from innerloop_server.domain.answers import Answers
from innerloop_server.domain.tasks import Array, Parts, SupportSet
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


def part_inputs(parts: Sequence[Parts], device: Device) -> Tensor:
    """Places of the examples of each part [T, P, L], padded by -1 to the most parts and to the largest."""
    most, largest = max(map(len, parts)), max(len(part) for of_task in parts for part in of_task)
    places = device.empty((device.padded(len(parts)), device.padded(most), largest), torch.int64)
    places.fill_(-1)
    for rows, of_task in zip(places.numpy(), parts, strict=False):
        for row, part in zip(rows, of_task, strict=False):
            row[: len(part)] = part
    return places


def left_out_in(outputs: Sequence[Array], tasks: Sequence[SupportSet], parts: Sequence[Parts]) -> list[Answers]:
    """Each task's answers to its parts, one after the other, of what `Computation.left_out` returned for the batch.

    Args:
        outputs: logits and probabilities [T, S, W].
        tasks: the support sets.
        parts: of each task.
    """
    return [
        Answers(*(array[number, np.concatenate(of_task), : task.ways] for array in outputs))
        for number, (task, of_task) in enumerate(zip(tasks, parts, strict=True))
    ]


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
