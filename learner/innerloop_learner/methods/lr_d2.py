"""Logistic regression as the last layer."""

from dataclasses import replace

import torch
from torch import Tensor

from innerloop_learner.learner import methods
from innerloop_learner.methods.r2d2 import LOG_PENALTY, R2D2
from innerloop_learner.tasks import Params

LEAST_WEIGHT = 1e-6
"""Of an example that is certain already; its reciprocal must stay finite."""


@methods.register("lr-d2")
class LRD2(R2D2):
    """R2-D2's logistic twin: every class against the rest, by Newton's method (Bertinetto et al. 2019, section 3.2).

    Iteratively reweighted least squares in its dual form. With K = XX', labels y in {0, 1} and scores z of the support
    set, which start at zero:

        p = sigmoid(z),  s = p (1 - p),  t = z + (y - p) / s,  a = (K + l diag(s)^-1)^-1 t,  z <- K a,   head = X' a

    A fixed number of iterations, through all of which gradients flow.

    Settings (`spec.settings`):
        iterations: of Newton's method.
    """

    info = replace(R2D2.info, name="lr-d2")

    def _configure(self, iterations: int = 5) -> None:
        if iterations < 1:
            raise ValueError(f"iterations must be at least 1, not {iterations}")
        self._iterations = iterations

    def _solve(self, params: Params, x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        """See R2D2._solve; one system of the size of the support set for every class."""
        kernel = (x @ x.transpose(1, 2)).unsqueeze(1)  # [T, 1, S, S]
        penalty = params[LOG_PENALTY].exp()
        labels = y.transpose(1, 2)  # [T, W, S]
        scores = torch.zeros_like(labels)
        for _ in range(self._iterations):
            chances = scores.sigmoid()
            weights = (chances * (1 - chances)).clamp(min=LEAST_WEIGHT)
            goals = (scores + (labels - chances) / weights) * mask.unsqueeze(1)
            coefficients: Tensor = torch.linalg.solve(kernel + torch.diag_embed(penalty / weights), goals.unsqueeze(-1))
            scores = (kernel @ coefficients).squeeze(-1)
        return x.transpose(1, 2) @ coefficients.squeeze(-1).transpose(1, 2)
