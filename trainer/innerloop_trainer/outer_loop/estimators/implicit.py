"""Implicit gradients."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from innerloop_learner.inner_loop import inner_loop
from innerloop_learner.methods.imaml import IMAML
from innerloop_learner.objectives import Objective, Stage
from innerloop_learner.objectives.objective import averaged, refitted
from innerloop_learner.objectives.query_loss import QueryLoss
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Episodes, Params
from innerloop_learner.update_rules.coordinates import flatten, unflatten
from innerloop_trainer.outer_loop.estimators.estimator import Estimate, Estimator, estimators


@dataclass(frozen=True)
class ImplicitSettings:
    """How exactly the linear system of each task is solved."""

    conjugate_steps: int = setting(5, "steps of conjugate gradients for each meta-gradient", least=1)
    least_curvature: float = setting(
        1.0,
        "curvature below which a direction is not believed, in parts of the pull: 1 believes no concave support loss, "
        "which is right far from a minimum, and 0 all that has a minimum",
        least=0.0,
    )


@estimators.register("implicit")
class Implicit(Estimator):
    """The meta-gradient at the minimum of the inner loss (iMAML, Rajeswaran et al. 2019).

    It does not depend on the way there.

    With the inner loss G(u; w) of `imaml`, its minimum u*, the query loss L_Q and H = d^2 G / du^2 at u*:

        H v = d L_Q(u*; w) / du,      d L_Q / dw = dL_Q / dw (u* held) - d/dw <v, dG(u*; w)/du>

    which for the pull l / 2 |u - w|^2 is l v, the paper's equation 6. v comes from a few steps of conjugate gradients
    (algorithm 2), each of which takes one product with H, and fewer where H shows that the minimum is far. No graph of
    the inner steps is kept, so memory does not grow with their number; but the gradient is as exact as the inner loop
    and the system are solved.

    Raises:
        ValueError: the learner's inner loss does not pull weights back to where they start.
    """

    asks_objective = False
    settings_class = ImplicitSettings
    settings: ImplicitSettings
    objective: QueryLoss
    in_parts = True

    def __init__(self, objective: Objective, settings: Any) -> None:
        super().__init__(objective, settings)
        if not isinstance(objective.learner, IMAML) or not isinstance(objective, QueryLoss):
            raise ValueError(
                f"{objective.learner.info.name} does not adapt to a minimum that depends on where it starts; "
                "train imaml"
            )
        self._learner = objective.learner

    def estimate(self, params: Params, carried: Params, episodes: Episodes, stage: Stage) -> Estimate:
        """See Estimator.estimate."""
        del carried, stage
        learner, support, query = self._learner, episodes.support, episodes.query
        steps = learner.default_steps
        adapted = {name: value.requires_grad_() for name, value in self._minimum(params, episodes).items()}
        learned = {n: value.detach().requires_grad_() for n, value in params.items() if n not in learner.buffers()}
        with torch.enable_grad():
            fresh = refitted(learner, {**params, **learned}, support)
            in_use = {**params, **learned, **fresh}
            inner = learner.support_loss(in_use, support, None)(steps, adapted, True).sum()
            slopes = torch.autograd.grad(inner, list(adapted.values()), create_graph=True)
            outputs = learner.predict(in_use, learner.state_after(in_use, adapted, support, None, steps), query)
            loss = self.objective.loss(outputs, episodes.targets, query.mask).mean()
        variables = [*adapted.values(), *learned.values()]
        found = torch.autograd.grad(loss, variables, retain_graph=True, materialize_grads=True)
        of_weights, direct = dict(zip(adapted, found, strict=False)), found[len(adapted) :]

        def product(vector: Tensor) -> Tensor:
            """H times a vector [T, P] of each task."""
            vectors = list(unflatten(vector, adapted).values())
            products = torch.autograd.grad(slopes, list(adapted.values()), vectors, retain_graph=True)
            return flatten(dict(zip(adapted, products, strict=True)))

        curvature = self.settings.least_curvature * learner.settings.proximal
        solved = conjugate_gradients(product, flatten(of_weights), self.settings.conjugate_steps, curvature)
        solution = unflatten(solved, adapted)
        through = torch.autograd.grad(slopes, list(learned.values()), list(solution.values()), materialize_grads=True)
        return Estimate(
            {name: a - b for name, a, b in zip(learned, direct, through, strict=True)},
            averaged(params, fresh),
            loss.detach(),
            outputs.detach(),
        )

    @torch.no_grad()
    def _minimum(self, params: Params, episodes: Episodes) -> Params:
        """The weights u* [T, ...] that the inner loop reaches."""
        learner, support = self._learner, episodes.support
        in_use = {**params, **refitted(learner, params, support)}
        loss = learner.support_loss(in_use, support, None)
        initial, steps = learner.adapted(in_use), learner.default_steps
        return inner_loop(loss, initial, learner.rule, in_use, steps, support.tasks, order=1).weights


def conjugate_gradients(product: Callable[[Tensor], Tensor], target: Tensor, steps: int, curvature: float) -> Tensor:
    """Solve A x = b for each task by conjugate gradients from x = 0 (Hestenes and Stiefel 1952).

    Away from a minimum A need not be positive definite, and the iteration would run away. So a task stops with the
    first direction along which A curves less than it should, after a step as long as if it curved so: at worst, x is
    b / `curvature`, and the implicit gradient points where that of first-order MAML points.

    Args:
        product: function that multiplies vectors [T, P] by the matrix A of each task.
        target: b, [T, P].
        steps: most steps to take.
        curvature: least curvature d'Ad / d'd that A has at a minimum.

    Example:
        >>> conjugate_gradients(lambda x: torch.tensor([2.0, 4.0]) * x, torch.tensor([[2.0, 2.0]]), 2, curvature=1)
        tensor([[1.0000, 0.5000]])
        >>> conjugate_gradients(lambda x: torch.tensor([2.0, -4.0]) * x, torch.tensor([[2.0, 2.0]]), 2, curvature=1)
        tensor([[2., 2.]])
    """
    x, residual, direction = torch.zeros_like(target), target, target
    size = _dot(residual, residual)
    goes_on = size > 0
    for _ in range(steps):
        image = product(direction)
        found, least = _dot(direction, image), curvature * _dot(direction, direction)
        x = x + torch.where(goes_on, size / torch.maximum(found, least), 0) * direction
        goes_on = goes_on & (found >= least)
        residual = residual - torch.where(goes_on, size / found, 0) * image
        before, size = size, _dot(residual, residual)
        goes_on = goes_on & (size > 0)
        direction = torch.where(goes_on, residual + size / before * direction, direction)
    return x


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products [T, 1] of vectors [T, P]."""
    return (a * b).sum(1, keepdim=True)
