"""The optimizer of meta-parameters."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from innerloop_learner.state import section
from innerloop_learner.tasks import Params

Schedule = Literal["cosine", "constant"]
"""Schedule of the outer learning rate: a cosine from the base rate to zero, or the base rate throughout."""


@dataclass(frozen=True)
class OptimizerPlan:
    """How meta-parameters are changed.

    Attributes:
        iterations: length of the schedule, in outer steps.
        learning_rate: learning rate at the start of the schedule.
        gradient_clip: largest norm of the meta-gradient, over all meta-parameters together.
        schedule: schedule of the learning rate.
    """

    iterations: int
    learning_rate: float
    gradient_clip: float
    schedule: Schedule = "cosine"

    def rate_at(self, iteration: int) -> float:
        """Learning rate of outer step number `iteration`.

        >>> [round(OptimizerPlan(10, 0.01, 10.0).rate_at(iteration), 4) for iteration in (0, 5, 10)]
        [0.01, 0.005, 0.0]
        """
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * iteration / self.iterations))


class Optimizer:
    """Adam with a schedule, on gradients of bounded norm; changes tensors in place.

    Args:
        params: meta-parameters by name.
        plan: learning rate, schedule and largest gradient.
        rates: learning rates of some of them by name, in parts of the plan's.
    """

    def __init__(self, params: Params, plan: OptimizerPlan, rates: Mapping[str, float] = MappingProxyType({})) -> None:
        self._params, self._plan = params, plan
        groups: dict[float, list[Tensor]] = {}
        for name, value in params.items():
            groups.setdefault(rates.get(name, 1.0), []).append(value)
        self._adam = torch.optim.Adam([{"params": group, "share": share} for share, group in groups.items()])

    def step(self, gradients: Params, iteration: int) -> None:
        """Take outer step number `iteration`; meta-parameters without a gradient stay as they are."""
        for name, value in self._params.items():
            value.grad = gradients.get(name)
        torch.nn.utils.clip_grad_norm_(list(self._params.values()), self._plan.gradient_clip)
        for group in self._adam.param_groups:
            group["lr"] = group["share"] * self._plan.rate_at(iteration)
        self._adam.step()
        self._adam.zero_grad()

    def state(self) -> Params:
        """Everything that the next step depends on besides the parameters, as `NAME.KEY`."""
        return {
            f"{name}.{key}": entry
            for name, value in self._params.items()
            for key, entry in self._adam.state.get(value, {}).items()
        }

    def restore(self, state: Params) -> None:
        """Continue from a state that `state` returned; its tensors may be on any device."""
        for name, value in self._params.items():
            entries = section(state, f"{name}.")
            # Adam keeps its step counter on the CPU, on every device.
            places = {key: torch.device("cpu") if key == "step" else value.device for key in entries}
            self._adam.state[value] = {key: entry.to(places[key], copy=True) for key, entry in entries.items()}
