"""Ridge regression as the last layer."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from innerloop_learner import leaving_out
from innerloop_learner.extension import appended
from innerloop_learner.heads import BIAS, WEIGHT, mask_unused_ways
from innerloop_learner.layers import linear
from innerloop_learner.learner import Learner, MethodInfo, methods
from innerloop_learner.settings import setting
from innerloop_learner.state import STATISTICS, WAYS, prefixed, section
from innerloop_learner.tasks import Adapted, Params, Query, Support, TaskState, equal_weights

FEATURES, LABELS = "features", "labels"
LOG_PENALTY, LOG_SCALE, SHIFT = "ridge.log_penalty", "ridge.log_scale", "ridge.shift"


@dataclass(frozen=True)
class R2D2Settings:
    """What the task state keeps."""

    keeps_features: bool = setting(
        False, "keep the features of all examples in the task state, so that it can learn more; F + 2 numbers each"
    )


@methods.register("r2d2")
class R2D2(Learner):
    """A ridge-regression head solved for in closed form (Bertinetto et al. 2019, section 3.1).

    The features are learned through the solution.

    With features X [S, F + 1] of the support set, a column of ones among them, and its one-hot labels Y [S, W]:

        H = (X'X + l I)^-1 X'Y = X'(XX' + l I)^-1 Y,   logits(x) = a H' f(x) + b

    Rows of X and Y are multiplied by the roots of their examples' weights (`Learner.loss_weights`). The second form
    (equation 5) solves a system as small as the support set and is taken where that is smaller. The penalty l, the
    scale a and the shift b are learned.

    With the setting `keeps_features` the state keeps X and the labels, and extending solves again. Sums X'X would not
    do: what an example counts depends on the sizes of all classes, so there would have to be one for each class.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        name="r2d2",
        family="weights",
        paper="Bertinetto, Henriques, Torr, Vedaldi: Meta-learning with Differentiable Closed-form Solvers. ICLR 2019",
        gradients_at_serving=False,
        order_matters=False,
        ways_can_change="any",
        tasks=("classification",),
        extends=True,
    )
    settings_class = R2D2Settings
    settings: R2D2Settings
    weighs_examples = True
    augments_support = True
    embeds_alone = True

    def init(self, generator: torch.Generator) -> Params:
        """See Learner.init; positive numbers are kept as logarithms."""
        # Regression answers lie between 0 and 1, which is too close together for a softmax.
        scalars = {LOG_PENALTY: torch.zeros(()), LOG_SCALE: torch.tensor(math.log(10.0)), SHIFT: torch.zeros(())}
        weights = {**self.backbone.init(generator), **scalars}
        return {**weights, **self.weighting.init(generator), **self.support_policy.init()}

    def adapt(self, params: Params, support: Support, steps: int | None = None) -> Adapted:
        """See Learner.adapt; state: head [T, W, F] and [T, W]; where it is to keep them, features and labels [T, S]."""
        del steps
        support, counts = self.support_policy.enlarge(params, support)
        features = self.backbone.apply(params, support.x, self.example_weights(support))
        learned = self.weighting.weigh(params, support, lambda: features.values)
        weights = counts if learned is None else learned
        state = self._solved(params, replace(support, x=features.values), weights)
        return Adapted({**state, **prefixed(STATISTICS, features.statistics)}, None, learned)

    def _extend(self, params: Params, state: TaskState, support: Support, steps: int | None) -> Adapted:
        """See Learner.extend: the head is solved for again, from the features of old and new examples."""
        del steps
        features = self.backbone.apply(params, support.x, self.example_weights(support)).values
        labels = appended(state[LABELS], _labels(support))
        every = Support(
            appended(state[FEATURES], features), labels.clamp(min=0), labels >= 0, support.ways, support.max_ways
        )
        return Adapted(self._solved(params, every, None), None)

    def _left_out(self, params: Params, features: Support, parts: Tensor, steps: int | None) -> Tensor:
        """See Learner._left_out; the answer to a single example that is left out follows from the whole system.

        With x and y multiplied by roots r of weights, as in `R2D2`, and A = XX' + l I (Rasmussen and Williams, Gaussian
        Processes for Machine Learning, 2006, equation 5.12):

            f(x_i) without i = (y_i - (A^-1 Y)_i / (A^-1)_ii) / r_i

        What others count depends on the class that has one example less, so there is a system for each class. Where
        there are more classes than parts, adapting for each part is less work, and where there are many of both, these
        systems would take much memory. Where examples outnumber features, A is singular but for the penalty, so float32
        would lose all digits.
        """
        numbers = features.max_ways * features.mask.numel() * features.mask.shape[1]  # of A, for all tasks and classes
        few = parts.shape[1] >= features.max_ways and numbers <= leaving_out.NUMBERS_AT_ONCE
        if parts.shape[2] > 1 or not few or self.spec.weighting != "none":
            return super()._left_out(params, features, parts, steps)
        x, y = _with_one(features.x).double(), features.members(torch.float64)
        roots = self._weights_without(y).sqrt()  # [T, W, S]
        kernel = (x @ x.transpose(1, 2)).unsqueeze(1) * roots.unsqueeze(2) * roots.unsqueeze(3)  # [T, W, S, S]
        identity = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        system = kernel + params[LOG_PENALTY].exp() * identity
        inverse = solve_without_waiting(system, identity.expand_as(system))
        solved = inverse @ (roots.unsqueeze(3) * y.unsqueeze(1))  # [T, W, S, W]
        diagonal = inverse.diagonal(dim1=2, dim2=3)
        own = y.argmax(2).unsqueeze(1)  # the system of an example's class, [T, 1, S]
        errors = solved.gather(1, own.unsqueeze(3).expand(-1, -1, -1, y.shape[2])).squeeze(1)
        answers = y - errors / (diagonal * roots).gather(1, own).squeeze(1).unsqueeze(2)
        return self._logits(params, answers.to(features.x.dtype), features.ways)

    def _weights_without(self, members: Tensor) -> Tensor:
        """The weights of examples if there is one less of class k, [T, W, S] by k; from `Support.members` [T, S, W]."""
        classes = torch.eye(members.shape[2], dtype=members.dtype, device=members.device)
        counts = (members.sum(1, keepdim=True) - classes).clamp(min=0)  # [T, W, W]
        weights = torch.ones_like(counts)
        if self.spec.class_balance == "equal":
            weights = equal_weights(counts.flatten(0, 1)).view_as(counts)
        return weights @ members.transpose(1, 2)

    def _why_not_extended(self) -> str:
        if not self.settings.keeps_features:
            return f"{self.info.name} learns more into an adaptation only with the setting keeps_features"
        return super()._why_not_extended()

    def _solved(self, params: Params, features: Support, learned: Tensor | None) -> TaskState:
        """The task state of a support set whose inputs are features [T, S, F].

        `learned` [T, S] is what the weighting or the support policy says; see `loss_weights`.
        """
        x = _with_one(features.x)  # [T, S, F + 1]
        y = features.members(x.dtype)  # [T, S, W]
        head = self._solve(params, x, y, self.loss_weights(features, learned)).transpose(1, 2)  # [T, W, F + 1]
        state = {WEIGHT: head[..., :-1], BIAS: head[..., -1], WAYS: features.ways}
        return {**state, FEATURES: features.x, LABELS: _labels(features)} if self.settings.keeps_features else state

    def predict(self, params: Params, state: TaskState, query: Query) -> Tensor:
        """See Learner.predict."""
        features = self.backbone.apply(params, query.x, query.mask, section(state, STATISTICS)).values
        return self._logits(params, linear(features, state[WEIGHT], state[BIAS]), state[WAYS])

    def _logits(self, params: Params, answers: Tensor, ways: Tensor) -> Tensor:
        """Logits [T, Q, W] of the answers of the regression, which lie between 0 and 1."""
        return mask_unused_ways(params[LOG_SCALE].exp() * answers + params[SHIFT], ways, -torch.inf)

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


def _with_one(features: Tensor) -> Tensor:
    return torch.cat([features, torch.ones_like(features[..., :1])], -1)


def _labels(support: Support) -> Tensor:
    """Class indices [T, S], -1 for padding."""
    return support.y.masked_fill(~support.mask, -1)


def solve_without_waiting(a: Tensor, b: Tensor) -> Tensor:
    """Solution x of a x = b, for a [..., N, N] that can't be singular and b [..., N, M].

    `torch.linalg.solve` reads whether it went well, for which a GPU has to be waited for and which no CUDA graph takes.
    """
    solution: Tensor = torch.linalg.solve_ex(a, b).result
    return solution
