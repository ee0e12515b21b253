"""`python -m innerloop_server.engine.pytorch.worker_process PARENT LINK MEMORY`: computes for the engine's process.

PARENT is that process's id, LINK and MEMORY are descriptors that it handed down.
"""

import os
import signal
import socket
import sys

# Before PyTorch is imported: a worker computes on one thread, side by side with others.
os.environ["OMP_NUM_THREADS"] = "1"

import torch

from innerloop_learner.host_memory import keep_freed_memory
from innerloop_learner.learner import build_learner
from innerloop_learner.spec import LearnerSpec
from innerloop_server.engine.pytorch.computation import Computation, Precision
from innerloop_server.engine.pytorch.staging import Staging, end_of
from innerloop_server.engine.pytorch.worker_messages import (
    LONGEST_REASON,
    Done,
    Failed,
    ForgetOrder,
    LoadOrder,
    Order,
    PredictOrder,
    Reply,
    receive,
    send,
)
from innerloop_server.engine.states.layout import from_plain, to_plain
from innerloop_server.ipc.child_process import end_with


class WorkerProcess:
    """Carries out orders.

    Args:
        staging: where tensors lie.
    """

    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self._models: dict[int, Computation] = {}

    def carry_out(self, order: Order) -> Done:
        """Do what was asked for; outputs lie behind the inputs."""
        match order:
            case LoadOrder():
                learner = build_learner(LearnerSpec.from_json(order.spec))
                params = {name: self._staging.at(place).clone() for name, place in order.params.items()}
                precision: Precision = order.precision  # type: ignore[assignment]
                self._models[order.model] = Computation(learner, params, precision)
                return Done()
            case ForgetOrder():
                del self._models[order.model]
                return Done()
        computation = self._models[order.model]
        if computation.task_convolution != order.task_convolution:
            computation.convolve_tasks_by(order.task_convolution)
        inputs = [self._staging.at(place) for place in order.inputs]
        learner, behind = computation.learner, end_of(order.inputs)
        if isinstance(order, PredictOrder):
            rows, x, present = inputs
            layout = computation.layouts.of_shapes(from_plain(order.layout))
            outputs = computation.predict(learner, layout, rows, x, present)
            return Done(self._staging.put(outputs, behind))
        x, y, present, ways = inputs
        layout, outputs = computation.adapt(learner, order.steps, order.width, x, y, present, ways)
        return Done(self._staging.put(outputs, behind), to_plain(layout.shapes))


def main() -> None:
    """Carry out orders until the engine's process is gone."""
    # Signals to stop are for the engine's process, though whoever sends them may send them to all processes.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent, link, memory = map(int, sys.argv[1:])
    end_with(parent)
    torch.set_num_threads(1)
    keep_freed_memory()
    worker, end = WorkerProcess(Staging(memory)), socket.socket(fileno=link)
    send(end, Done())
    while True:
        try:
            order = receive(end, Order)
        except (EOFError, OSError):
            return
        reply: Reply
        try:
            reply = worker.carry_out(order)
        except Exception as error:
            reply = Failed(f"{type(error).__name__}: {error}"[:LONGEST_REASON])
        send(end, reply)


if __name__ == "__main__":
    main()
