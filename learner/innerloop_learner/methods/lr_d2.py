"""Logistic regression as the last layer."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from innerloop_learner.learner import Learner, methods
from innerloop_learner.methods.r2d2 import LOG_PENALTY, LOG_SCALE, R2D2, R2D2Settings, solve_without_waiting
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Params, Support

LEAST_CURVATURE = 1e-6
"""Smallest p (1 - p) of an example whose class is certain already; its reciprocal must stay finite."""


@dataclass(frozen=True)
class LRD2Settings(R2D2Settings):
    """Settings of the solver of the head, and what the task state keeps."""

    iterations: int = setting(5, "iterations of Newton's method", least=1)
    scale: float = setting(10.0, "factor of the scores at first, which training changes", least=1e-3, most=1e3)


@methods.register("lr-d2")
class LRD2(R2D2):
    """A logistic head solved for by Newton's method (Bertinetto et al. 2019, section 3.2).

    It is R2-D2's logistic twin, where every class stands against the rest.

    Iteratively reweighted least squares in its dual form. With K = XX', labels y in {0, 1}, weights c of the examples
    (`Learner.loss_weights`) and scores z of the support set, which start at zero:

        p = sigmoid(z),  s = p (1 - p),  t = z + (y - p) / s,  a = (K + l diag(c s)^-1)^-1 t,  z <- K a,   head = X' a

    or, where the support set is larger than the features, in its primal form, with C = diag(c s),
    head = (X'CX + l I)^-1 X'C t.
    A fixed number of iterations, through all of which gradients flow.
    """

    info = replace(R2D2.info, name="lr-d2")
    settings_class = LRD2Settings
    settings: LRD2Settings

    def init(self, generator: torch.Generator) -> Params:
        """See Learner.init."""
        return {**super().init(generator), LOG_SCALE: torch.tensor(math.log(self.settings.scale))}

    def _left_out(self, params: Params, features: Support, parts: Tensor, steps: int | None) -> Tensor:
        """See Learner._left_out: Newton's steps have no closed form, as ridge regression has."""
        return Learner._left_out(self, params, features, parts, steps)

    def _solve(self, params: Params, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        """See R2D2._solve; a system for every class."""
        penalty = params[LOG_PENALTY].exp()
        labels = y.transpose(1, 2)  # [T, W, S]
        real = weights > 0
        x = x * real.unsqueeze(-1)
        # Inputs and goals of padding are zero, so its weight may be any number but zero.
        counts = torch.where(real, weights, torch.ones_like(weights)).unsqueeze(1)  # [T, 1, S]
        solve = _dual if x.shape[1] <= x.shape[2] else _primal
        scores = torch.zeros_like(labels)
        for _ in range(self.settings.iterations):
            probabilities = scores.sigmoid()
            curvatures = (probabilities * (1 - probabilities)).clamp(min=LEAST_CURVATURE)
            goals = (scores + (labels - probabilities) / curvatures) * real.unsqueeze(1)
            head = solve(x, counts * curvatures, goals, penalty)
            scores = head @ x.transpose(1, 2)
        return head.transpose(1, 2)


def _dual(x: Tensor, weights: Tensor, goals: Tensor, penalty: Tensor) -> Tensor:
    """Weighted ridge regression of goals [T, W, S] on x [T, S, F], [T, W, F], by systems of the size S."""
    kernel = (x @ x.transpose(1, 2)).unsqueeze(1)  # [T, 1, S, S]
    system = kernel + torch.diag_embed(penalty / weights)
    return solve_without_waiting(system, goals.unsqueeze(-1)).squeeze(-1) @ x


def _primal(x: Tensor, weights: Tensor, goals: Tensor, penalty: Tensor) -> Tensor:
    """Solve the problem of `_dual` by systems of the size F."""
    xt = x.transpose(1, 2).unsqueeze(1)  # [T, 1, F, S]
    gram = (xt * weights.unsqueeze(2)) @ x.unsqueeze(1)  # [T, W, F, F]
    identity = torch.eye(x.shape[2], dtype=x.dtype, device=x.device)
    moments = (weights * goals) @ x
    return solve_without_waiting(gram + penalty * identity, moments.unsqueeze(-1)).squeeze(-1)
