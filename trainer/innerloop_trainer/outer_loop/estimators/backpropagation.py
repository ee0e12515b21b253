"""Backpropagation through adapting and predicting."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from innerloop_learner.objectives import Objective, Stage
from innerloop_learner.tasks import Episodes, Params
from innerloop_trainer.outer_loop.estimators.estimator import Estimate, Estimator, TeachersTaken, estimators


@estimators.register("backpropagation")
class Backpropagation(Estimator):
    """Differentiates through adapting and predicting (Finn et al. 2017, equation 1).

    Raises:
        ValueError: the learner has discrete choices to learn.
    """

    teachers: ClassVar[TeachersTaken] = "fixed"
    through_steps = True
    in_parts = True

    def __init__(self, objective: Objective, settings: Any) -> None:
        super().__init__(objective, settings)
        learner = objective.learner
        if learner.choices():
            raise ValueError(
                f"no gradient reaches the choices of {learner.info.name}; take --estimator reinforce, or choose "
                f"yourself (see innerloop methods {learner.info.name})"
            )

    def estimate(self, params: Params, carried: Params, episodes: Episodes, stage: Stage) -> Estimate:
        """See Estimator.estimate."""
        del carried
        return backpropagate(self.objective, params, episodes, stage)


def backpropagate(objective: Objective, params: Params, episodes: Episodes, stage: Stage) -> Estimate:
    """The gradient of an objective by differentiation; the arguments are those of `Objective.__call__`."""
    constant = objective.learner.buffers() | objective.strengths()
    learned = {name: value.detach().requires_grad_() for name, value in params.items() if name not in constant}
    with torch.enable_grad():
        outcome = objective({**params, **learned}, episodes, stage)
        gradients = torch.autograd.grad(outcome.loss, list(learned.values()), materialize_grads=True)
    return Estimate(
        # The gradient of a sum is a view of one number, expanded, which can't be changed in place.
        {name: gradient.contiguous() for name, gradient in zip(learned, gradients, strict=True)},
        outcome.buffers,
        outcome.loss.detach(),
        outcome.outputs.detach(),
    )


def look_ahead(loss: Tensor, weights: Params, rate: float) -> tuple[Params, Params]:
    """A step of plain gradient descent that can be differentiated, and the gradient that it follows.

    Args:
        loss: loss of the weights, a scalar.
        weights: weights by name, which require gradients.
        rate: length of the step, in gradients.

    Returns:
        weights after the step, and gradients, by name.
    """
    found = torch.autograd.grad(loss, list(weights.values()), create_graph=True, materialize_grads=True)
    slopes = dict(zip(weights, found, strict=True))
    return {name: value - rate * slopes[name] for name, value in weights.items()}, slopes
