"""Batch normalisation with the statistics of the bundle."""

import torch
from torch import Tensor

from innerloop_learner.norms.norm import Norm, Statistics, norms, shares_of
from innerloop_learner.norms.task import standardise_by_task
from innerloop_learner.parts import current_part
from innerloop_learner.tasks import Params


@norms.register("batch")
class BatchNorm(Norm):
    """Batch normalisation by statistics of the bundle (Ioffe and Szegedy 2015).

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
        """See Norm.apply; the running moments among `params` are used, and no other statistics."""
        del weights, statistics
        return self._scaled(params, x, *self._running(params)), {}

    def as_affine(self, params: Params, statistics: Statistics) -> tuple[Tensor, Tensor] | None:
        """See Norm.as_affine."""
        del statistics
        return self._combined(params, *self._running(params))

    def refit(self, params: Params, x: Tensor, weights: Tensor) -> tuple[Tensor, Params]:
        """See Norm.refit; the moments are pooled over tasks."""
        learned, tasks = self.learned(params), x.shape[0]
        if any(part.dim() > 1 for part in learned) or current_part().total(tasks) > tasks:
            mean, variance = _moments(x.flatten(0, 1), weights.flatten())
            return self._scaled(params, x, mean, variance), self._fresh(mean, variance)
        # All examples as those of one task, whose gradient is there in closed form.
        together = (x.flatten(3) if x.dim() > 3 else x.unsqueeze(-1)).flatten(0, 1).unsqueeze(0)  # [1, T * N, C, P]
        shares = shares_of(weights.flatten().unsqueeze(0), x.dtype)
        y, *moments = standardise_by_task(together, shares, *(part.unsqueeze(0) for part in learned))
        return y.view(x.shape), self._fresh(*(moment.squeeze(0) for moment in moments))

    def _fresh(self, mean: Tensor, variance: Tensor) -> Params:
        return {f"{self.name}.running_mean": mean, f"{self.name}.running_variance": variance}

    def _running(self, params: Params) -> tuple[Tensor, Tensor]:
        return params[f"{self.name}.running_mean"], params[f"{self.name}.running_variance"]


def _moments(x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance [C] over examples, by their weights [N], and positions of x [N, C, ...].

    The examples are those of all parts of a batch. They are averaged over positions before weights apply, so that no
    weighted copy of x is made.
    """
    part, weights = current_part(), weights.to(x.dtype)
    shares = weights / part.sum(weights.sum()).clamp(min=torch.finfo(x.dtype).tiny)  # [N]
    positions = x.flatten(2) if x.dim() > 2 else x.unsqueeze(-1)
    mean = part.sum(shares @ positions.mean(-1))
    variance = part.sum(shares @ (positions - mean.unsqueeze(-1)).square().mean(-1))
    return mean, variance
