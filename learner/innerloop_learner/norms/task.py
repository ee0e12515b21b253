"""Batch normalisation of each task by itself."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from innerloop_learner.norms.norm import EPSILON, Norm, Statistics, norms, shares_of
from innerloop_learner.tasks import Params


@norms.register("task")
class TaskBatchNorm(Norm):
    """Batch normalisation by each task's support set (MetaBN, Bronskill et al. 2020, section 3.2).

    The statistics belong to the task state: the support set gives them, queries only use them.
    """

    support_statistics = True

    def apply(self, params: Params, x: Tensor, weights: Tensor, statistics: Statistics) -> tuple[Tensor, Params]:
        """See Norm.apply."""
        mean, variance = f"{self.name}.mean", f"{self.name}.variance"
        if mean in statistics:
            return self._scaled(params, x, statistics[mean], statistics[variance]), {}
        affine = (part.expand(x.shape[0], -1) for part in self.learned(params))  # [T, C]
        positions = x.unsqueeze(-1) if x.dim() == 3 else x.flatten(3)  # [T, N, C, P]
        y, *moments = standardise_by_task(positions, shares_of(weights, x.dtype), *affine)
        return y.view(x.shape), self.statistics(*moments)

    def as_affine(self, params: Params, statistics: Statistics) -> tuple[Tensor, Tensor] | None:
        """See Norm.as_affine."""
        mean, variance = f"{self.name}.mean", f"{self.name}.variance"
        return self._combined(params, statistics[mean], statistics[variance]) if mean in statistics else None

    def statistics(self, mean: Tensor, variance: Tensor) -> Params:
        """Mean and variance [T, C] as statistics, by name."""
        return {f"{self.name}.mean": mean, f"{self.name}.variance": variance}


class _StandardisedByTask(torch.autograd.Function):
    """Batch normalisation of each task by itself, with its gradient in closed form.

    y = scale * (x - mean) / sqrt(variance + eps) + shift, moments over examples by their shares and over positions.

    Differentiating the formula operation by operation reads and writes activations three times as often. The gradient
    is made of differentiable operations on inputs and outputs, so that it can be differentiated again.

    Args:
        x: [T, N, C, P].
        shares: of the examples, [T, N].
        scale, shift: [T, C].

    Returns:
        y, mean [T, C] and variance [T, C].
    """

    generate_vmap_rule = True  # for populations of networks

    @staticmethod
    def forward(x: Tensor, shares: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = _mean(x, shares)
        centred = x - mean[:, None, :, None]
        variance = _mean(centred.square(), shares)
        slope = scale * (variance + EPSILON).rsqrt()
        return torch.addcmul(shift[:, None, :, None], centred, slope[:, None, :, None]), mean, variance

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        x, shares, scale, _ = inputs
        _, mean, variance = output
        ctx.save_for_backward(x, shares, scale, mean, variance)
        ctx.set_materialize_grads(False)  # inside the inner loop the moments' gradients are not needed

    @staticmethod
    def backward(
        ctx: Any, y_grad: Tensor | None, mean_grad: Tensor | None, variance_grad: Tensor | None
    ) -> tuple[Tensor, None, Tensor | None, Tensor | None]:
        x, shares, scale, mean, variance = ctx.saved_tensors
        centred = x - mean[:, None, :, None]
        at_mean = torch.zeros_like(mean) if mean_grad is None else mean_grad
        at_variance = torch.zeros_like(variance) if variance_grad is None else variance_grad
        scale_grad = shift_grad = slope = None
        if y_grad is not None:
            inverse = (variance + EPSILON).rsqrt()
            slope, shift_grad = scale * inverse, y_grad.sum((1, 3))
            along = (y_grad * centred).sum((1, 3))
            scale_grad = along * inverse
            at_mean = at_mean - slope * shift_grad
            at_variance = at_variance - 0.5 * slope * inverse.square() * along
        weights = (shares / x.shape[3])[:, :, None, None]  # the weight of one position of an example in a moment
        x_grad = torch.addcmul(
            weights * at_mean[:, None, :, None], centred, 2 * weights * at_variance[:, None, :, None]
        )
        if y_grad is not None and slope is not None:
            x_grad = torch.addcmul(x_grad, y_grad, slope[:, None, :, None])
        return x_grad, None, scale_grad, shift_grad


standardise_by_task: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]] = (
    _StandardisedByTask.apply
)
"""Normalise x [T, N, C, P]; see `_StandardisedByTask`."""


def _mean(x: Tensor, shares: Tensor) -> Tensor:
    """Mean of x [T, N, C, P] over positions, and over examples by their shares [T, N]: [T, C]."""
    return (shares.unsqueeze(1) @ x.mean(-1)).squeeze(1)
