"""The optimizer of meta-parameters."""

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

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
        weight_decay: a step shrinks decayed meta-parameters by this times the learning rate.
    """

    iterations: int
    learning_rate: float
    gradient_clip: float
    schedule: Schedule = "cosine"
    weight_decay: float = 0.0

    def rate_at(self, iteration: int) -> float:
        """Learning rate of outer step number `iteration`.

        >>> [round(OptimizerPlan(10, 0.01, 10.0).rate_at(iteration), 4) for iteration in (0, 5, 10)]
        [0.01, 0.005, 0.0]
        """
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * iteration / self.iterations))


class Optimizer:
    """AdamW (Loshchilov and Hutter 2019) with a schedule, on gradients of bounded norm; changes tensors in place.

    Without weight decay, as a plan has it unless it says otherwise, AdamW is Adam.

    Args:
        params: meta-parameters by name.
        plan: learning rate, schedule, largest gradient and weight decay.
        rates: learning rates of some of them by name, in parts of the plan's.
        decayed: names of those that the plan's weight decay is for.
        on_device: whether learning rates and counters of steps lie on the device of the meta-parameters, a GPU, so that
            a recorded step can be replayed with others.
    """

    def __init__(
        self,
        params: Params,
        plan: OptimizerPlan,
        rates: Mapping[str, float] = MappingProxyType({}),
        decayed: Set[str] = frozenset(),
        *,
        on_device: bool = False,
    ) -> None:
        self._params, self._plan, self._on_device = params, plan, on_device
        members: dict[tuple[float, float], list[Tensor]] = {}
        for name, value in params.items():
            decay = plan.weight_decay if name in decayed else 0.0
            members.setdefault((rates.get(name, 1.0), decay), []).append(value)
        groups: list[dict[str, Any]] = [
            {"params": group, "share": share, "weight_decay": decay} for (share, decay), group in members.items()
        ]
        if on_device:
            for group in groups:
                group["lr"] = group["params"][0].new_zeros(())
        self._adam = torch.optim.AdamW(groups, capturable=on_device)

    def begin(self, iteration: int) -> None:
        """Take over the learning rates of outer step number `iteration`."""
        for group in self._adam.param_groups:
            rate = group["share"] * self._plan.rate_at(iteration)
            if self._on_device:
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def step(self, gradients: Params) -> None:
        """Follow gradients; meta-parameters without one stay as they are."""
        for name, value in self._params.items():
            value.grad = gradients.get(name)
        torch.nn.utils.clip_grad_norm_(list(self._params.values()), self._plan.gradient_clip)
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
            cpu = torch.device("cpu")  # where Adam keeps its counter of steps, unless that is to be on the device
            places = {key: cpu if key == "step" and not self._on_device else value.device for key in entries}
            self._adam.state[value] = {key: entry.to(places[key], copy=True) for key, entry in entries.items()}
