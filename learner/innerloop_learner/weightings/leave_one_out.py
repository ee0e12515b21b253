"""Weights by how far each example lies from the rest of its class."""

from collections.abc import Callable

import torch
from torch import Tensor

from innerloop_learner.layers import glorot, squared_distances
from innerloop_learner.losses import weighted_mean
from innerloop_learner.tasks import Params, Support
from innerloop_learner.weightings.weighting import Weighting, weightings

IN_WEIGHT, IN_BIAS = "weighting.in.weight", "weighting.in.bias"
OUT_WEIGHT, OUT_BIAS = "weighting.out.weight", "weighting.out.bias"

QUANTITIES, HIDDEN = 3, 16

GAIN = 10.0
"""Factor of what the network says. Weights become as sharp as they are useful within the outer steps that a backbone
needs, where with 1 the network had barely begun."""

ROUNDS = 3
"""Times that weights are computed. In the first, wrong examples still pull at the means that they are judged by."""

SMALLEST = 1e-3
"""Added to distances, in parts of the mean distance of the task, so that their logarithms stay finite; added to v, so
that roots of weights have gradients."""

ALONE = 1e-4
"""Smallest share of a class's weight beside one example that is told from none; with v it is 1e-3 at least."""

FAR = 1e9
"""Stands for the distance to a class that has no examples."""


@weightings.register("leave_one_out")
class LeaveOneOut(Weighting):
    """Judges each example by the others of its class (after Shu et al. 2019, section 3).

    A small network g sees distances to class means, and gives weights.

    Meta-Weight-Net (Shu et al. 2019, equation 3) maps the loss of an example to its weight, where Ren et al. (2018,
    equation 12) take the gradient of a clean loss. Here every task is new and its few labels are all there is, so an
    example i of class y is judged by the other examples: with weights w, means c_k of classes, and c_y without i itself
    in the place of c_y,

        d_i = |f_i - c_y without i|^2,   o_i = min_{k != y} |f_i - c_k|^2,   both in parts of the mean d of the task
        q_i = (log d_i, log o_i, log d_i - mean of log d over class y)
        v_i = sigmoid(10 g(q_i)) + 0.001,   w_i = v_i / mean of v over class y

    three times, beginning with w = 1. g has one hidden layer of 16 units. Its last layer is zero at first, so training
    begins with equal weights; an example that is alone in its class always has weight 1.
    """

    def init(self, generator: torch.Generator) -> Params:
        """See Weighting.init."""
        return {
            IN_WEIGHT: glorot(generator, HIDDEN, QUANTITIES),
            IN_BIAS: torch.zeros(HIDDEN),
            OUT_WEIGHT: torch.zeros(HIDDEN),
            OUT_BIAS: torch.zeros(()),
        }

    def weigh(self, params: Params, support: Support, features: Callable[[], Tensor]) -> Tensor | None:
        """See Weighting.weigh."""
        values = features()
        members = support.members(values.dtype)  # [T, S, W]
        weights = support.mask.to(values.dtype)
        for _ in range(ROUNDS):
            hidden = (_quantities(values, members, weights) @ params[IN_WEIGHT].T + params[IN_BIAS]).tanh()
            votes = (GAIN * (hidden @ params[OUT_WEIGHT] + params[OUT_BIAS])).sigmoid() + SMALLEST
            weights = torch.where(support.mask, votes / _mean_of_class(votes, members), 0.0)
        return weights


def _quantities(values: Tensor, members: Tensor, weights: Tensor) -> Tensor:
    """What the network sees of each example, [T, S, 3], from features [T, S, F], classes [T, S, W], weights [T, S]."""
    weighted = members * weights.unsqueeze(-1)
    totals = weighted.sum(1)  # [T, W], the numbers of examples
    means = weighted.transpose(1, 2) @ values / totals.clamp(min=1).unsqueeze(-1)
    distances = squared_distances(values, means).clamp(min=0)  # [T, S, W]
    # The mean without the example itself lies farther away in proportion: f - c' = (f - c) t / (t - w).
    rest = 1 - weights / _of_class(totals, members)
    # From differences, since squares would lose the few digits that a large weight leaves between f and c.
    own = (values - members @ means).square().sum(-1) / rest.clamp(min=ALONE).square()
    own = torch.where(members.sum(-1) > 0, own, 0.0)
    absent = (members.sum(1) == 0).unsqueeze(1)
    others = distances.masked_fill(absent | (members > 0), FAR).amin(-1)
    scale = weighted_mean(own, weights).unsqueeze(1)
    scale = torch.where(scale > 0, scale, 1.0)  # no class has two examples that differ
    own_log, others_log = (torch.log(each / scale + SMALLEST) for each in (own, others))
    return torch.stack([own_log, others_log, own_log - _mean_of_class(own_log, members)], -1)


def _of_class(values: Tensor, members: Tensor) -> Tensor:
    """What classes [T, W] have, for each example of them [T, S]; 1 for padding."""
    own = (members * values.unsqueeze(1)).sum(-1)
    return torch.where(members.sum(-1) > 0, own, 1.0)


def _mean_of_class(values: Tensor, members: Tensor) -> Tensor:
    """The mean of values [T, S] over the class of each example [T, S]; 1 for padding."""
    means = (members * values.unsqueeze(-1)).sum(1) / members.sum(1).clamp(min=1)
    return _of_class(means, members)
