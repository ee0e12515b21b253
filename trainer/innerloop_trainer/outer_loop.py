"""The outer loop: a meta-gradient and an optimizer change the parameters of a learner."""

import math
from typing import Literal

import torch

from innerloop_learner.learner import Learner, Stage
from innerloop_learner.tasks import Episodes, Params
from innerloop_trainer.meta_gradient import Estimate, MetaGradient
from innerloop_trainer.seeds import seed_for

Schedule = Literal["cosine", "constant"]
"""Of the outer learning rate: a cosine from the base rate to zero, or the base rate throughout."""


class OuterLoop:
    """Adam with a schedule on an estimated meta-gradient.

    Its whole state is `state()`: tensors by name, so that a run can be interrupted and resumed to the bit.

    Args:
        learner: to train.
        params: to start from.
        estimator: of the meta-gradient.
        iterations: length of the schedule, in steps.
        learning_rate: at its start.
        gradient_clip: largest norm of the meta-gradient.
        seed: of randomness inside the outer loss.
        schedule: of the learning rate.
    """

    def __init__(
        self,
        learner: Learner,
        params: Params,
        estimator: MetaGradient,
        iterations: int,
        learning_rate: float,
        gradient_clip: float,
        seed: int,
        schedule: Schedule = "cosine",
    ) -> None:
        self._learner = learner
        self._estimator = estimator
        self._iterations = iterations
        self._base_rate = learning_rate
        self._clip = gradient_clip
        self._seed = seed
        self._schedule = schedule
        self._params = {name: value.detach().clone() for name, value in params.items()}
        self._learned = [name for name in self._params if name not in learner.buffers()]
        self._optimizer = torch.optim.Adam([self._params[name] for name in self._learned], lr=learning_rate)

    @property
    def params(self) -> Params:
        """Current parameters; later steps change them in place."""
        return self._params

    def learning_rate(self, iteration: int) -> float:
        """Learning rate of a step."""
        if self._schedule == "constant":
            return self._base_rate
        return self._base_rate * 0.5 * (1 + math.cos(math.pi * iteration / self._iterations))

    def step(self, episodes: Episodes, iteration: int) -> Estimate:
        """Take outer step number `iteration` on a batch of episodes."""
        stage = Stage(iteration / self._iterations, seed_for(self._seed, "objective", iteration))
        estimate = self._estimator.estimate(self._learner, self._params, episodes, stage)
        for name in self._learned:
            self._params[name].grad = estimate.gradients[name]
        torch.nn.utils.clip_grad_norm_([self._params[name] for name in self._learned], self._clip)
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate(iteration)
        self._optimizer.step()
        self._optimizer.zero_grad()
        for name, value in estimate.buffers.items():
            self._params[name].copy_(value)
        return estimate

    def state(self) -> dict[str, torch.Tensor]:
        """Everything the next step depends on, as named tensors."""
        state = {f"parameters.{name}": value for name, value in self._params.items()}
        for name in self._learned:
            for key, value in self._optimizer.state.get(self._params[name], {}).items():
                state[f"optimizer.{name}.{key}"] = value
        return state

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Continue from what `state` returned, wherever its tensors lie now.

        Raises:
            ValueError: it is the state of another learner.
        """
        shapes = {name: state[f"parameters.{name}"].shape for name in self._params if f"parameters.{name}" in state}
        if shapes != {name: value.shape for name, value in self._params.items()}:
            raise ValueError("its parameters are not those of this learner")
        for name, value in self._params.items():
            value.copy_(state[f"parameters.{name}"])
        for name in self._learned:
            prefix = f"optimizer.{name}."
            entries = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            parameter = self._params[name]
            # Adam keeps its step counter on the CPU whatever the device.
            places = {key: torch.device("cpu") if key == "step" else parameter.device for key in entries}
            self._optimizer.state[parameter] = {k: v.to(places[k], copy=True) for k, v in entries.items()}
