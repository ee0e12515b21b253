"""Conv4 on a CPU: the same maths as `conv4.Conv4` in fewer and larger operations.

`acceleration.accelerated` puts these in the place of a plain Conv4 when a model is loaded onto a CPU.
"""

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from innerloop_learner.backbones import fused_blocks, training_blocks
from innerloop_learner.backbones.backbone import Features, Normalise
from innerloop_learner.backbones.conv4 import Conv4
from innerloop_learner.backbones.fused_blocks import Block
from innerloop_learner.layers import CONVOLUTION, conv2d, of_each_task, scaled
from innerloop_learner.norms import Norm, Statistics, TaskBatchNorm, shares_of
from innerloop_learner.tasks import Params

MANY_IMAGES = 5
"""From this many images per task on, batching tasks that share weights gains nothing (measured on two cores)."""


class FoldedConv4(Conv4):
    """Conv4 that folds factor and summand of a norm into the convolution before it, where they don't depend on inputs.

    That saves one pass over the activations of each block.
    """

    def _convolved(self, params: Params, block: int, norm: Norm, x: Tensor, normalise: Normalise) -> Tensor:
        """See Conv4._convolved."""
        weight, bias = params[f"conv{block}.weight"], params[f"conv{block}.bias"]
        known = normalise.as_affine(norm)
        if known is None or _would_part(weight, *known):
            return super()._convolved(params, block, norm, x, normalise)
        return conv2d(x, *scaled(weight, bias, *known), self._stride, self.task_convolution)


class FusedConv4(FoldedConv4):
    """Conv4 that takes one task after the other through all blocks.

    The gradients of `fused_blocks` can't be differentiated again. Where gradients are recorded, this backbone therefore
    takes `training_blocks`, or goes by layers for tasks that share weights, unless it was made by `once`, whose caller
    promises not to differentiate twice.
    """

    _once = False

    @property
    def once(self) -> "FusedConv4":
        """See Backbone.once."""
        twin = copy.copy(self)
        twin._once = True
        return twin

    def apply(
        self,
        params: Params,
        x: Tensor,
        weights: Tensor,
        statistics: Statistics | None = None,
        noise_keys: Tensor | None = None,
    ) -> Features:
        """See Backbone.apply."""
        fused = self._fused(params, x, weights, statistics or {}) if self._may_fuse(x) else None
        return fused or super().apply(params, x, weights, statistics, noise_keys)

    def _may_fuse(self, x: Tensor) -> bool:
        """Whether x [T, N, C, H, W] may go through fused blocks."""
        # Exporters and compilers pass stand-ins for tensors, which fused blocks don't take.
        real = type(x) is Tensor and not torch.compiler.is_compiling()
        whole = self.begins and self.ends
        return real and whole and x.shape[:2].numel() > 0

    def _fused(self, params: Params, x: Tensor, weights: Tensor, given: Statistics) -> Features | None:
        """The result of `apply`, one task after the other; None where norms can't be fused or layers are faster."""
        shared = params["conv0.weight"].dim() == CONVOLUTION
        twice = torch.is_grad_enabled() and not self._once
        if twice and shared:
            return None
        form = training_blocks if twice else fused_blocks
        known = [affine for norm in self.norms if (affine := norm.as_affine(params, given)) is not None]
        if len(known) == len(self.norms):
            if shared and all(scale.dim() == shift.dim() == 1 for scale, shift in known):
                # All tasks share all weights, so their images can run as those of a single task.
                (blocks,) = self._tasks(params, known, 1)
                y = fused_blocks.affine(x.flatten(0, 1), blocks, self._pool)
                return Features(y.reshape(*x.shape[:2], -1), {})
            if not _best_alone(x, shared=shared):
                return None
            tasks = self._tasks(params, known, len(x))
            parts = [form.affine(xt, blocks, self._pool) for xt, blocks in zip(x, tasks, strict=True)]
            return Features(torch.stack(parts).flatten(2), {})
        standardise = [norm for norm in self.norms if type(norm) is TaskBatchNorm]
        if known or len(standardise) < len(self.norms) or not _best_alone(x, shared=shared):
            return None
        tasks = self._tasks(params, [norm.learned(params) for norm in standardise], len(x))
        each = zip(x, _shares(weights, x.dtype), tasks, strict=True)
        results = [form.standardising(xt, shares, blocks, self._pool) for xt, shares, blocks in each]
        y, means, variances = (torch.stack(tensors) for tensors in zip(*results, strict=True))
        moments = zip(standardise, means.unbind(1), variances.unbind(1), strict=True)
        statistics = {name: value for norm, *own in moments for name, value in norm.statistics(*own).items()}
        return Features(y.flatten(2), statistics)

    def _tasks(self, params: Params, affine: Sequence[tuple[Tensor, Tensor]], tasks: int) -> Iterator[list[Block]]:
        """The blocks of each task, given the factors and summands of their norms, [C] or [T, C] each."""
        columns = []
        for block, (scale, shift) in enumerate(affine):
            weight, bias = params[f"conv{block}.weight"], params[f"conv{block}.bias"]
            parts = [(weight, CONVOLUTION), (bias, 1), (scale, 1), (shift, 1)]
            columns.append(map(Block, *(of_each_task(value, dims, tasks) for value, dims in parts)))
        return map(list, zip(*columns, strict=True))


def _shares(weights: Tensor, dtype: torch.dtype) -> Sequence[Tensor | None]:
    """The shares [N] of each task's examples, of weights [T, N]; None for a task whose examples all count alike."""
    alike = [min(own) == max(own) > 0 for own in weights.tolist()]
    if all(alike):
        return [None] * len(alike)
    shares = shares_of(weights, dtype).unbind()
    return [None if same else own for same, own in zip(alike, shares, strict=True)]


def _would_part(weight: Tensor, scale: Tensor, shift: Tensor) -> bool:
    """Whether folding `scale` into a weight that tasks share would give each task a weight of its own."""
    return weight.dim() == CONVOLUTION and max(scale.dim(), shift.dim()) > 1


def _best_alone(x: Tensor, *, shared: bool) -> bool:
    """Whether tasks are faster one by one. Tasks of a few images are faster together, if they share weights."""
    return x.shape[0] == 1 or x.shape[1] >= MANY_IMAGES or not shared
