"""A side of the comparison as a program of its own: it takes an outer step, or tells its gradient, when it is asked.

It is asked by a line of JSON on the standard input and answers by one on the standard output. Whatever a library
prints goes to the standard error.
"""

import argparse
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from workload import Batch, Weights, Workload, batch_of, load_workload


class Side(ABC):
    """Trains the network in one way."""

    @abstractmethod
    def restart(self, weights: Weights) -> None:
        """Begin anew with these weights and a fresh outer optimizer, which is Adam."""

    @abstractmethod
    def step(self, batch: Batch) -> float:
        """Take an outer step; returns the mean loss of the queries before it."""

    @abstractmethod
    def gradient(self, batch: Batch) -> tuple[float, Weights]:
        """The mean loss of a batch's queries, and its meta-gradient."""

    @abstractmethod
    def weights(self) -> Weights:
        """The meta-parameters."""

    def device_bytes(self) -> int:
        """The most memory of a GPU that was in use; zero without one."""
        return 0


def serve(make: Callable[[Workload, int, int], Side]) -> None:
    """Answer until the input ends.

    Args:
        make: makes the side, given the workload, the threads of a process, and the number of processes.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    workload, initial, batches = load_workload(given.folder)
    side = make(workload, given.threads, given.processes)
    side.restart(initial)

    def answer(asked: dict[str, Any]) -> dict[str, Any]:
        match asked["do"]:
            case "step":
                batch = batch_of(batches, asked["step"])
                began = perf_counter()
                loss = side.step(batch)
                return {"seconds": perf_counter() - began, "loss": loss}
            case "gradient":
                loss, gradient = side.gradient(batch_of(batches, asked["step"]))
                np.savez(asked["file"], **gradient)  # type: ignore[arg-type]
                return {"loss": loss}
            case "weights":
                np.savez(asked["file"], **side.weights())  # type: ignore[arg-type]
            case "restart":
                side.restart(initial)
            case "memory":
                return {"bytes": side.device_bytes()}
        return {}

    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)
