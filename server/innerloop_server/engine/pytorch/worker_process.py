"""`python -m innerloop_server.engine.pytorch.worker_process PARENT LINK MEMORY`: computes for the engine's process.

PARENT is that process's id, LINK and MEMORY are descriptors that it handed down.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from threading import Thread

# Before PyTorch is imported: a worker computes on one thread, side by side with others.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from innerloop_learner.host_memory import keep_freed_memory
from innerloop_learner.learner import build_learner
from innerloop_learner.loops import Stopped, stopping
from innerloop_learner.spec import LearnerSpec
from innerloop_server.engine.pytorch.computation import Computation, Precision
from innerloop_server.engine.pytorch.state_layout import from_plain, to_plain
from innerloop_server.engine.pytorch.worker_control import CONTROL_BYTES, WorkerControl
from innerloop_server.engine.pytorch.worker_messages import (
    LONGEST_REASON,
    Abandoned,
    Adapted,
    AdaptOrder,
    ExtendOrder,
    Failed,
    ForgetOrder,
    LeaveOutOrder,
    LoadOrder,
    Order,
    Predicted,
    PredictOrder,
    Reply,
    Started,
)
from innerloop_server.ipc.arrays import ArrayAt, array_in, end_of, write
from innerloop_server.ipc.child_process import end_with
from innerloop_server.ipc.packets import receive_packet_with_descriptors, send_packet
from innerloop_server.ipc.segment import Segment

BEAT_SECONDS = 0.5
"""Seconds between two signs of life."""


class WorkerProcess:
    """Carries out orders.

    Args:
        memory: shared with the engine's process; batches lie there, and what was computed is written behind them. The
            last bytes of it are a `WorkerControl`.
    """

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self._memory = memory[:-CONTROL_BYTES]
        self._control = WorkerControl(memory[-CONTROL_BYTES:])
        self._models: dict[int, Computation] = {}
        self._refused: dict[int, str] = {}

    def keep_beating(self) -> None:
        """Give signs of life for ever; PyTorch lets a thread do so while another one computes."""
        while True:
            self._control.beat()
            time.sleep(BEAT_SECONDS)

    def load(self, order: LoadOrder, params: NDArray[np.uint8]) -> None:
        """Take up a model; where that fails, its orders will."""
        try:
            learner = build_learner(LearnerSpec.from_json(order.spec))
            tensors = {name: torch.from_numpy(array_in(params, at).copy()) for name, at in order.params.items()}
            precision: Precision = order.precision  # type: ignore[assignment]
            self._models[order.model] = Computation(learner, tensors, precision)
        except Exception as error:
            self._refused[order.model] = describe(error)

    def forget(self, order: ForgetOrder) -> None:
        """Let go of a model."""
        self._models.pop(order.model, None)
        self._refused.pop(order.model, None)

    def compute(self, order: AdaptOrder | ExtendOrder | LeaveOutOrder | PredictOrder) -> Reply:
        """Compute a batch."""
        computation = self._models.get(order.model)
        if computation is None:
            return Failed(self._refused.get(order.model, "it knows no such model"))
        try:
            if computation.task_convolution != order.task_convolution:
                computation.convolve_tasks_by(order.task_convolution)
            if isinstance(order, PredictOrder):
                return self._predict(computation, order)
            with stopping(lambda: self._control.abandoned):
                if isinstance(order, ExtendOrder):
                    return self._extend(computation, order)
                if isinstance(order, LeaveOutOrder):
                    return self._leave_out(computation, order)
                return self._adapt(computation, order)
        except Stopped:
            return Abandoned()
        except Exception as error:
            return Failed(describe(error))

    def _adapt(self, computation: Computation, order: AdaptOrder) -> Adapted:
        started = time.perf_counter()
        learner, (x, y, present, ways) = computation.learner, self._tensors(order.inputs)
        layout, outputs = computation.adapt(learner, order.steps, order.width, x, y, present, ways)
        after = end_of([*order.inputs, *(place for group in order.groups for place in group.inputs)])
        places = self._write(outputs, after)
        between = time.perf_counter()
        answers: list[tuple[ArrayAt, ...]] = []
        for group in order.groups:
            rows = outputs[0] if group.members == tuple(range(len(x))) else outputs[0][list(group.members)]
            given = computation.predict(learner, layout, rows, *self._tensors(group.inputs))
            answers.append(self._write(given, end_of(answers[-1] if answers else places)))
        seconds = between - started, time.perf_counter() - between
        return Adapted(places, to_plain(layout.shapes), tuple(answers), *seconds)

    def _extend(self, computation: Computation, order: ExtendOrder) -> Adapted:
        started = time.perf_counter()
        before = computation.layouts.of_shapes(from_plain(order.layout))
        rows, x, y, present, ways = self._tensors(order.inputs)
        layout, outputs = computation.extend(
            computation.learner, order.steps, order.width, before, rows, x, y, present, ways
        )
        places = self._write(outputs, end_of(order.inputs))
        return Adapted(places, to_plain(layout.shapes), (), time.perf_counter() - started, 0.0)

    def _leave_out(self, computation: Computation, order: LeaveOutOrder) -> Predicted:
        started = time.perf_counter()
        parts, x, y, present, ways = self._tensors(order.inputs)
        outputs = computation.left_out(computation.learner, order.steps, order.width, parts, x, y, present, ways)
        return Predicted(self._write(outputs, end_of(order.inputs)), time.perf_counter() - started)

    def _predict(self, computation: Computation, order: PredictOrder) -> Predicted:
        started = time.perf_counter()
        rows, x, present = self._tensors(order.inputs)
        layout = computation.layouts.of_shapes(from_plain(order.layout))
        answers = self._write(computation.predict(computation.learner, layout, rows, x, present), end_of(order.inputs))
        return Predicted(answers, time.perf_counter() - started)

    def _tensors(self, places: Sequence[ArrayAt]) -> list[Tensor]:
        return [torch.from_numpy(array_in(self._memory, place)) for place in places]

    def _write(self, tensors: Sequence[Tensor], after: int) -> tuple[ArrayAt, ...]:
        return write(self._memory, [tensor.numpy() for tensor in tensors], after)


def describe(error: Exception) -> str:
    """An error in a line that fits into a message."""
    return f"{type(error).__name__}: {error}"[:LONGEST_REASON]


def main() -> None:
    """Carry out orders until the engine's process is gone."""
    # Signals to stop are for the engine's process, though whoever sends them may send them to all processes.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent, link, memory = map(int, sys.argv[1:])
    end_with(parent)
    torch.set_num_threads(1)
    keep_freed_memory()
    worker, end = WorkerProcess(Segment(memory).whole), socket.socket(fileno=link)
    Thread(target=worker.keep_beating, daemon=True).start()
    send_packet(end, Started())
    while True:
        order: Order
        try:
            order, descriptors = receive_packet_with_descriptors(end, Order)
        except (EOFError, OSError):
            return
        match order:
            case LoadOrder():
                params = Segment(*descriptors)
                worker.load(order, params.whole)
                params.close()
                del params
            case ForgetOrder():
                worker.forget(order)
            case _:
                send_packet(end, worker.compute(order))


if __name__ == "__main__":
    main()
