"""Versions of learners that give the same answers faster on one kind of device.

Learners and backbones hold the maths only, and never ask which device they run on. Code that loads a model onto a
device calls `accelerated` once, and uses the learner that it returns.
"""

import copy
from typing import TypeVar

import torch

from innerloop_learner.backbones.conv4 import Conv4
from innerloop_learner.backbones.fused_conv4 import FoldedConv4, FusedConv4
from innerloop_learner.layers import TaskConvolution
from innerloop_learner.learner import Learner

L = TypeVar("L", bound=Learner)


def accelerated(
    learner: L,
    device: torch.device | str,
    *,
    low_precision: bool = False,
    task_convolution: TaskConvolution | None = None,
) -> L:
    """The version of a learner that is fastest on `device`; its answers are the same up to rounding.

    Only learners with the backbone Conv4, without noise in it, have other versions. On a CPU norms are folded into
    convolutions, and if tasks run one after the other in full precision, all blocks of a task are fused.

    Args:
        learner: the learner, which is not changed. It may be a result of this function.
        device: device on which its inputs and parameters will be.
        low_precision: whether the learner runs under `torch.autocast`.
        task_convolution: way to convolve tasks that have weights of their own (see `layers.conv2d`); None for the one
            that is fastest on most devices of this kind.

    Example:
        >>> from innerloop_learner import InputSpec, LearnerSpec, build_learner
        >>> learner = build_learner(LearnerSpec("protonet", InputSpec((1, 28, 28))))
        >>> type(accelerated(learner, "cpu").backbone).__name__
        'FusedConv4'
        >>> type(accelerated(learner, "cuda").backbone).__name__
        'Conv4'
    """
    if not isinstance(learner.backbone, Conv4):
        return learner
    on_cpu = torch.device(device).type == "cpu" and not learner.backbone.noise.random
    one_by_one = task_convolution in (None, "loop") and not low_precision
    kind = (FusedConv4 if one_by_one else FoldedConv4) if on_cpu else Conv4
    twin = copy.copy(learner)
    twin.backbone = kind(learner.spec.input.shape, learner.backbone.settings)
    twin.backbone.task_convolution = task_convolution
    return twin


def in_low_precision(learner: L, device: torch.device | str) -> L:
    """The version of a learner whose backbone computes in bfloat16; everything behind the features stays as it is.

    Distances and losses need more digits than bfloat16 has, and take little of the time. Convolutions take most of it,
    and many processors have units that do them faster in bfloat16.

    Args:
        learner: the learner, which is not changed.
        device: device on which its inputs and parameters will be.
    """
    twin = copy.copy(accelerated(learner, device, low_precision=True))
    twin.backbone = copy.copy(twin.backbone)
    twin.backbone.low_precision = True
    return twin
