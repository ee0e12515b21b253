"""Normalisation whose statistics never come from queries.

Serving is inductive: what normalises a query belongs to the task state (support statistics) or to the bundle (averages
of meta-training), so that an answer never depends on other queries. Moments are written out here rather than taken from
`F.batch_norm`, whose double backward is wrong under `torch.func.vmap`, which knows no masks, and which on a CPU adds up
all positions one by one.

Every norm is `apply(params, x, weights, statistics) -> (y, statistics)`: given statistics are used, missing ones are
computed from x and returned, so that adapting computes them and predicting reuses them. `weights` [T, N] are what each
example counts in them: a mask, or weights that let every class of a support set count the same, which keeps a class
with many examples from deciding how all others are normalised.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from innerloop_learner.registry import Registry
from innerloop_learner.tasks import Params

Statistics = Mapping[str, Tensor]
"""Means and variances by layer, [T, C] each."""

EPSILON = 1e-5


class Norm(ABC):
    """One normalisation layer over the channels (third dimension) of [T, N, C, ...].

    Args:
        name: prefix of its parameters and statistics.
        channels: C.
    """

    support_statistics: ClassVar[bool] = False
    """Whether adapting must hand statistics of the support set to predicting."""

    def __init__(self, name: str, channels: int) -> None:
        self.name = name
        self.channels = channels

    def init(self) -> Params:
        """Scale one and shift zero, [C] each."""
        return {f"{self.name}.weight": torch.ones(self.channels), f"{self.name}.bias": torch.zeros(self.channels)}

    def buffers(self) -> frozenset[str]:
        """Names of parameters that are averaged, not learned."""
        return frozenset()

    def learned(self, params: Params) -> tuple[Tensor, Tensor]:
        """Scale and shift, [C] or [T, C] each."""
        return params[f"{self.name}.weight"], params[f"{self.name}.bias"]

    @abstractmethod
    def apply(self, params: Params, x: Tensor, weights: Tensor, statistics: Statistics) -> tuple[Tensor, Params]:
        """Normalise x [T, N, C, ...]; returns it with the statistics computed here, empty if given ones were used.

        `weights` [T, N] are what each example counts in them.
        """

    def refit(self, params: Params, x: Tensor, weights: Tensor) -> tuple[Tensor, Params]:
        """Normalise x [T, N, C, ...] with its own moments; returns it with new values of the buffers."""
        return self.apply(params, x, weights, {})[0], {}

    def as_affine(self, params: Params, statistics: Statistics) -> tuple[Tensor, Tensor] | None:
        """What `apply` multiplies by and adds, [C] or [T, C] each; None where that depends on what it is given.

        A norm that overrides `apply` overrides this, too.
        """
        del params, statistics
        return None

    def _affine(self, params: Params, y: Tensor) -> Tensor:
        scale, shift = self.learned(params)
        return y * self._aligned(scale, y) + self._aligned(shift, y)

    def _scaled(self, params: Params, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """Normalise and apply the affine map as one multiplication and one addition per element."""
        scale, shift = self._combined(params, mean, variance)
        return torch.addcmul(self._aligned(shift, x), x, self._aligned(scale, x))

    def _combined(self, params: Params, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """One multiplication and one addition that normalise and apply the affine map."""
        weight, bias = self.learned(params)
        scale = weight * (variance + EPSILON).rsqrt()
        return scale, bias - mean * scale

    def _aligned(self, values: Tensor, x: Tensor) -> Tensor:
        """View [C] or [T, C] so that it broadcasts over x [T, N, C, ...]."""
        tasks = values.shape[0] if values.dim() == 2 else 1
        return values.view(tasks, 1, self.channels, *(1,) * (x.dim() - 3))


norms: Registry[type[Norm]] = Registry("norm", "innerloop.norms")


@norms.register("task")
class TaskBatchNorm(Norm):
    """Batch normalisation with the statistics of each task's support set (MetaBN, Bronskill et al. 2020, section 3.2).

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
        y, *moments = _standardise_by_task(positions, shares_of(weights, x.dtype), *affine)
        return y.view(x.shape), self.statistics(*moments)

    def as_affine(self, params: Params, statistics: Statistics) -> tuple[Tensor, Tensor] | None:
        """See Norm.as_affine."""
        mean, variance = f"{self.name}.mean", f"{self.name}.variance"
        return self._combined(params, statistics[mean], statistics[variance]) if mean in statistics else None

    def statistics(self, mean: Tensor, variance: Tensor) -> Params:
        """Moments [T, C] by their names."""
        return {f"{self.name}.mean": mean, f"{self.name}.variance": variance}


@norms.register("batch")
class BatchNorm(Norm):
    """Batch normalisation (Ioffe and Szegedy 2015) with the statistics of the bundle.

    Meta-training normalises with the moments of all support sets of the meta-batch together, and averages them into
    the buffers that serving uses.
    """

    def init(self) -> Params:
        """Affine parameters and running moments [C]."""
        moments = {
            f"{self.name}.running_mean": torch.zeros(self.channels),
            f"{self.name}.running_variance": torch.ones(self.channels),
        }
        return {**super().init(), **moments}

    def buffers(self) -> frozenset[str]:
        """The running moments."""
        return frozenset({f"{self.name}.running_mean", f"{self.name}.running_variance"})

    def apply(self, params: Params, x: Tensor, weights: Tensor, statistics: Statistics) -> tuple[Tensor, Params]:
        """See Norm.apply; statistics are parameters here."""
        del weights, statistics
        return self._scaled(params, x, *self._running(params)), {}

    def as_affine(self, params: Params, statistics: Statistics) -> tuple[Tensor, Tensor] | None:
        """See Norm.as_affine."""
        del statistics
        return self._combined(params, *self._running(params))

    def refit(self, params: Params, x: Tensor, weights: Tensor) -> tuple[Tensor, Params]:
        """See Norm.refit; the moments are pooled over tasks."""
        pooled = _moments(x.flatten(0, 1).unsqueeze(0), weights.flatten().unsqueeze(0))
        mean, variance = (moment.squeeze(0) for moment in pooled)
        fresh = {f"{self.name}.running_mean": mean, f"{self.name}.running_variance": variance}
        return self._scaled(params, x, mean, variance), fresh

    def _running(self, params: Params) -> tuple[Tensor, Tensor]:
        return params[f"{self.name}.running_mean"], params[f"{self.name}.running_variance"]


@norms.register("group")
class GroupNorm(Norm):
    """Group normalisation (Wu and He 2018) in groups of eight channels: each example by itself.

    Raises:
        ValueError: the channels do not divide into such groups.
    """

    group_size = 8

    def __init__(self, name: str, channels: int) -> None:
        super().__init__(name, channels)
        self._groups = max(1, channels // self.group_size)
        if channels % self._groups:
            raise ValueError(f"group norm needs a multiple of {self.group_size} channels, not {channels}")

    def apply(self, params: Params, x: Tensor, weights: Tensor, statistics: Statistics) -> tuple[Tensor, Params]:
        """See Norm.apply; there are no statistics."""
        del weights, statistics
        grouped = x.reshape(*x.shape[:2], self._groups, -1)
        variance, mean = torch.var_mean(grouped, dim=-1, correction=0, keepdim=True)
        return self._affine(params, ((grouped - mean) * (variance + EPSILON).rsqrt()).view(x.shape)), {}


@norms.register("layer")
class LayerNorm(GroupNorm):
    """Layer normalisation (Ba et al. 2016): all channels of an example together."""

    def __init__(self, name: str, channels: int) -> None:
        self.group_size = channels
        super().__init__(name, channels)


@norms.register("none")
class NoNorm(Norm):
    """No normalisation."""

    def init(self) -> Params:
        """No parameters."""
        return {}

    def apply(self, params: Params, x: Tensor, weights: Tensor, statistics: Statistics) -> tuple[Tensor, Params]:
        """See Norm.apply."""
        del params, weights, statistics
        return x, {}


def _moments(x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over examples, by their weights [T, N], and positions of x [T, N, C, ...], [T, C] each.

    Examples are averaged over positions before weights apply, so that no weighted copy of x is made.
    """
    shares = shares_of(weights, x.dtype).unsqueeze(1)  # [T, 1, N]
    positions = x.flatten(3) if x.dim() > 3 else x.unsqueeze(-1)
    mean = (shares @ positions.mean(-1)).squeeze(1)
    centred = positions - mean[:, None, :, None]
    variance = (shares @ centred.square().mean(-1)).squeeze(1)
    return mean, variance


def shares_of(weights: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights [T, N] that sum to 1 in each task; all zero for a task without examples."""
    weights = weights.to(dtype)
    total = weights.sum(1, keepdim=True)
    return weights / (total + (total == 0))


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

    @staticmethod
    def forward(ctx: Any, x: Tensor, shares: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = _mean(x, shares)
        centred = x - mean[:, None, :, None]
        variance = _mean(centred.square(), shares)
        slope = scale * (variance + EPSILON).rsqrt()
        ctx.save_for_backward(x, shares, scale, mean, variance)
        ctx.set_materialize_grads(False)  # inside the inner loop nobody asks for the moments' gradients
        return torch.addcmul(shift[:, None, :, None], centred, slope[:, None, :, None]), mean, variance

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
        weights = (shares / x.shape[3])[:, :, None, None]  # of one position of an example
        x_grad = torch.addcmul(
            weights * at_mean[:, None, :, None], centred, 2 * weights * at_variance[:, None, :, None]
        )
        if y_grad is not None and slope is not None:
            x_grad = torch.addcmul(x_grad, y_grad, slope[:, None, :, None])
        return x_grad, None, scale_grad, shift_grad


_standardise_by_task: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]] = (
    _StandardisedByTask.apply
)


def _mean(x: Tensor, shares: Tensor) -> Tensor:
    """Mean of x [T, N, C, P] over positions, and over examples by their shares [T, N]: [T, C]."""
    return (shares.unsqueeze(1) @ x.mean(-1)).squeeze(1)
