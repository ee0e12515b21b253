"""Ridge regression as the last layer."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from innerloop_learner.heads import BIAS, WEIGHT, mask_unused_ways
from innerloop_learner.layers import linear
from innerloop_learner.learner import Learner, MethodInfo, methods
from innerloop_learner.state import STATISTICS, WAYS, prefixed, section
from innerloop_learner.tasks import Adapted, Params, Query, Support, TaskState

LOG_PENALTY, LOG_SCALE, SHIFT = "ridge.log_penalty", "ridge.log_scale", "ridge.shift"


@methods.register("r2d2")
class R2D2(Learner):
    """A linear head solved for in closed form, through which the features are learned (Bertinetto et al. 2019, 3.1).

    With features X [S, F + 1] of the support set, a column of ones among them, and its one-hot labels Y [S, W]:

        H = (X'X + l I)^-1 X'Y = X'(XX' + l I)^-1 Y,   logits(x) = a H' f(x) + b

    Rows of X and Y are multiplied by the roots of their examples' weights (`Learner.loss_weights`). The second form
    (equation 5) solves a system as small as the support set and is taken where that is smaller. The penalty l, the
    scale a and the shift b are learned.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        name="r2d2",
        family="weights",
        paper="Bertinetto, Henriques, Torr, Vedaldi: Meta-learning with Differentiable Closed-form Solvers. ICLR 2019",
        gradients_at_serving=False,
        order_matters=False,
        ways_can_change="any",
        tasks=("classification",),
    )
    weighs_examples = True

    def init(self, generator: torch.Generator) -> Params:
        """See Learner.init; positive numbers are kept as logarithms."""
        # Regression answers lie between 0 and 1, which is too close together for a softmax.
        scalars = {LOG_PENALTY: torch.zeros(()), LOG_SCALE: torch.tensor(math.log(10.0)), SHIFT: torch.zeros(())}
        return {**self.backbone.init(generator), **scalars, **self.weighting.init(generator)}

    def adapt(self, params: Params, support: Support, steps: int | None = None) -> Adapted:
        """See Learner.adapt; state: head [T, W, F] and [T, W]."""
        del steps
        features = self.backbone.apply(params, support.x, self.example_weights(support))
        learned = self.weighting.weigh(params, support, lambda: features.values)
        x = torch.cat([features.values, torch.ones_like(features.values[..., :1])], -1)  # [T, S, F + 1]
        y = support.members(x.dtype)  # [T, S, W]
        head = self._solve(params, x, y, self.loss_weights(support, learned)).transpose(1, 2)  # [T, W, F + 1]
        statistics = prefixed(STATISTICS, features.statistics)
        state = {WEIGHT: head[..., :-1], BIAS: head[..., -1], WAYS: support.ways, **statistics}
        return Adapted(state, None, learned)

    def predict(self, params: Params, state: TaskState, query: Query) -> Tensor:
        """See Learner.predict."""
        features = self.backbone.apply(params, query.x, query.mask, section(state, STATISTICS)).values
        logits = params[LOG_SCALE].exp() * linear(features, state[WEIGHT], state[BIAS]) + params[SHIFT]
        return mask_unused_ways(logits, state[WAYS], -torch.inf)

    def _solve(self, params: Params, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        """The head [T, F + 1, W] for x [T, S, F + 1] and y [T, S, W], whose rows have weights [T, S]."""
        penalty = params[LOG_PENALTY].exp()
        roots = weights.sqrt().unsqueeze(-1)
        x, y = x * roots, y * roots
        xt = x.transpose(1, 2)
        examples, features = x.shape[1:]
        gram, goals = (x @ xt, y) if examples <= features else (xt @ x, xt @ y)
        identity = torch.eye(gram.shape[-1], dtype=x.dtype, device=x.device)
        solution = solve_without_waiting(gram + penalty * identity, goals)
        return xt @ solution if examples <= features else solution


def solve_without_waiting(a: Tensor, b: Tensor) -> Tensor:
    """Solution x of a x = b, for a [..., N, N] that can't be singular and b [..., N, M].

    `torch.linalg.solve` reads whether it went well, for which a GPU has to be waited for and which no CUDA graph takes.
    """
    solution: Tensor = torch.linalg.solve_ex(a, b).result
    return solution
