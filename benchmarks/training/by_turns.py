"""Measures the sides of one workload by turns."""

import random
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from sides import SideProcess, SideSpec, Turn
from tasks import SEED, accuracy, difference, draw_tasks, initial_weights, right_gradient
from workload import Workload, batch_of, save_workload

TOLERANCE = 0.02
"""Largest difference of a meta-gradient from float64, in parts of its norm. Rounding that flips a ReLU or a maximum
makes less than 0.005; one inner step too many, or inner gradients as constants, make more than 0.06."""

LOSS_TOLERANCE = 1e-3
"""Largest difference of the mean loss from float64, in parts of it."""

TURN_SECONDS = 15.0
"""Seconds of steps after which a side rests for the rest of a workload, if it had `LEAST_TURNS` of its turns."""

LEAST_TURNS = 2

BATCHES, MOST_TASKS = 60, 1024
"""Different batches of a workload, and the tasks of all of them at most; then they come again."""

WARM_UP = {"cpu": 0, "cuda": 6}
"""Steps of each side that are not timed: on a GPU, kernels are chosen, and graphs recorded, in the first few."""

TARGET, VALIDATION_TASKS = 0.55, 40
STEPS_BETWEEN, RACE_SECONDS = 10, 30.0
"""Outer steps between two validations, and the training time after which a side gives up."""


class Measuring:
    """The sides of one workload.

    Args:
        workload: what they train.
        folder: folder to write for them.
    """

    def __init__(self, workload: Workload, folder: Path) -> None:
        self._workload, self._folder = workload, folder
        count = min(BATCHES, MOST_TASKS // workload.tasks)
        batches, weights = draw_tasks(workload, "train", count), initial_weights(workload)
        save_workload(folder, workload, weights, batches)
        self._right_loss, self._right_gradient = right_gradient(workload, weights, batch_of(batches, 1))
        self._running: dict[str, SideProcess] = {}

    def start(self, stack: ExitStack, side: SideSpec, python: Path) -> dict[str, Any]:
        """Start a side, which `stack` will stop, and check what it computes.

        Returns:
            figures; under "failed", what went wrong.
        """
        figures: dict[str, Any] = {"threads": side.threads, "processes": side.processes, "counts": side.counts}
        try:
            process = SideProcess(side, Path(sys.executable) if side.ours else python, self._folder)
            stack.callback(process.stop)
            process.restart()
            loss, gradient = process.gradient(1)
            off = {
                "loss_difference": abs(loss / self._right_loss - 1),
                "gradient_difference": difference(gradient, self._right_gradient),
            }
            figures |= {"first_step_seconds": process.first_step_seconds, **off}
            if not (off["loss_difference"] <= LOSS_TOLERANCE and off["gradient_difference"] <= TOLERANCE):
                raise RuntimeError(f"it computes something else than the others: {off}")
            self._running[side.name] = process
        except Exception as error:
            # One side that fails shall not cost the figures of the others.
            figures["failed"] = f"{type(error).__name__}: {error}"
        print(f"{self._workload.name}: {side.name}: {figures.get('failed', 'started')}", flush=True)
        return figures

    def take_turns(self, rounds: int, figures: dict[str, Any]) -> None:
        """Have all sides take outer steps by turns, and add what these took."""
        for name, process in self._running.items():
            first = [process.step(number).seconds for number in range(WARM_UP[self._workload.device])]
            figures[name]["ready_seconds"] = figures[name]["first_step_seconds"] + sum(first)
        turns: dict[str, list[Turn | None]] = {name: [] for name in self._running}
        order = random.Random(SEED)
        for number in range(rounds):
            for name in order.sample(list(turns), len(turns)):
                taken = [turn for turn in turns[name] if turn]
                rests = len(taken) >= LEAST_TURNS and sum(turn.seconds for turn in taken) > TURN_SECONDS
                turns[name].append(None if rests else self._running[name].step(number))
        for name, process in self._running.items():
            taken = [turn for turn in turns[name] if turn]
            figures[name] |= {
                "tasks_per_second": self._workload.tasks / median(turn.seconds for turn in taken),
                "peak_bytes": process.peak_bytes(),
                "turns": [asdict(turn) if turn else None for turn in turns[name]],
            }

    def race(self, names: list[str], figures: dict[str, Any]) -> dict[str, Any]:
        """The time that each side takes from the start of its process to the target, all by turns.

        Validation is done by this process and does not count.
        """
        tasks = draw_tasks(self._workload, "validation", VALIDATION_TASKS // self._workload.tasks)
        states = {name: {"seconds": 0.0, "steps": 0, "accuracy": 0.0} for name in names if name in self._running}
        for name in states:
            self._running[name].restart()
        racing = list(states)
        while racing:
            for name in racing:
                state, process = states[name], self._running[name]
                for _ in range(STEPS_BETWEEN):
                    state["seconds"] += process.step(state["steps"]).seconds
                    state["steps"] += 1
                state["accuracy"] = accuracy(self._workload, process.weights(), tasks)
            racing = [name for name in racing if not _arrived(states[name]) and states[name]["seconds"] < RACE_SECONDS]
        for name, state in states.items():
            arrived = _arrived(state)
            state["seconds_to_target"] = figures[name]["first_step_seconds"] + state["seconds"] if arrived else None
        return {"workload": self._workload.name, "target": TARGET, "sides": states}


def _arrived(state: dict[str, Any]) -> bool:
    return bool(state["accuracy"] >= TARGET)
