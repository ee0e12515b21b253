"""The outer loop: an estimator and an optimizer change named meta-parameters."""

import torch

from innerloop_learner.learner import Learner
from innerloop_learner.objectives import Stage
from innerloop_learner.state import prefixed, section
from innerloop_learner.tasks import Episodes, Params
from innerloop_trainer.outer_loop.estimators import Estimate, Estimator
from innerloop_trainer.outer_loop.optimizer import Optimizer, OptimizerPlan
from innerloop_trainer.outer_loop.replay import Replayed
from innerloop_trainer.seeds import seed_for

PARAMETERS, OPTIMIZER, CARRIED = "parameters.", "optimizer.", "estimator."
"""Prefixes of the names of tensors in `OuterLoop.state`."""


def decayed(learner: Learner) -> frozenset[str]:
    """The names of the meta-parameters that weight decay is for: convolutions and matrices of the backbone.

    Biases and norms are left alone, and so is what a method learns besides, such as learning rates, which have no
    reason to be small.
    """
    # The backbone's own shapes tell, since a method may keep a norm's weights for each step.
    weights = learner.backbone.init(torch.Generator())
    return frozenset(name for name, value in weights.items() if value.dim() > 1) - learner.buffers()


class OuterLoop:
    """Estimates a gradient and takes a step along it, again and again.

    Its whole state is `state()`: tensors by name, so that a run can be interrupted and resumed to the bit.

    Args:
        estimator: estimator of the gradient of an objective.
        params: meta-parameters and buffers to start from; they are copied.
        plan: plan of the optimizer.
        seed: seed of randomness inside estimator and objective.
        replay: whether to replay steps as a CUDA graph, if they can be recorded; for parameters on a GPU.
    """

    def __init__(
        self, estimator: Estimator, params: Params, plan: OptimizerPlan, seed: int, *, replay: bool = False
    ) -> None:
        self._estimator, self._plan, self._seed = estimator, plan, seed
        self._params = {name: value.detach().clone() for name, value in params.items()}
        learner = estimator.objective.learner
        buffers = learner.buffers()
        learned = {name: value for name, value in self._params.items() if name not in buffers}
        device = next(iter(self._params.values())).device
        on_device = replay or device.type == "cuda"
        shrinking = decayed(learner) if plan.weight_decay else frozenset[str]()
        self._optimizer = Optimizer(learned, plan, estimator.rates(), shrinking, on_device=on_device)
        self._carried = estimator.start(self._params)
        self._replayed = Replayed("outer steps", self._taken, device) if replay else None

    @property
    def params(self) -> Params:
        """Current parameters; later steps change them in place."""
        return self._params

    def step(self, episodes: Episodes, iteration: int) -> Estimate:
        """Take outer step number `iteration` on a batch of episodes; the result holds until the next step."""
        stage = Stage(iteration / self._plan.iterations, seed_for(self._seed, "objective", iteration))
        self._optimizer.begin(iteration)
        estimate = (self._replayed or self._taken)(stage, episodes, self._carried)
        self._carried = estimate.carried
        return estimate

    @property
    def replayed(self) -> Replayed[Estimate] | None:
        """The step as it is replayed; None if it is not to be."""
        return self._replayed

    def _taken(self, stage: Stage, episodes: Episodes, carried: Params) -> Estimate:
        """Take a step, whose work on a device depends on nothing but the arguments and tensors that stay in place."""
        ahead = self._estimator.estimate_ahead(self._params, episodes, stage)
        if ahead:
            self._optimizer.step(ahead)
        estimate = self._estimator.estimate(self._params, carried, episodes, stage)
        self._optimizer.step(estimate.gradients)
        for name, value in estimate.buffers.items():
            self._params[name].copy_(value)
        return estimate

    def state(self) -> Params:
        """Everything the next step depends on, as named tensors."""
        return {
            **prefixed(PARAMETERS, self._params),
            **prefixed(OPTIMIZER, self._optimizer.state()),
            **prefixed(CARRIED, self._carried),
        }

    def restore(self, state: Params) -> None:
        """Continue from a state that `state` returned; its tensors may be on any device.

        Raises:
            ValueError: the state is that of another learner.
        """
        found = section(state, PARAMETERS)
        if {name: value.shape for name, value in found.items()} != {
            n: value.shape for n, value in self._params.items()
        }:
            raise ValueError("its parameters are not those of this learner")
        for name, value in self._params.items():
            value.copy_(found[name])
        self._optimizer.restore(section(state, OPTIMIZER))
        device = next(iter(self._params.values())).device
        self._carried = {name: value.to(device, copy=True) for name, value in section(state, CARRIED).items()}
        if self._replayed is not None:
            self._replayed.forget()
