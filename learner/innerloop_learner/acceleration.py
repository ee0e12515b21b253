"""Learners that compute the same faster on one kind of device.

Learners and backbones say the maths and never ask where they run. Whoever loads a model onto a device asks here for its
twin there, once.
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
    """A learner that answers as the given one does, up to rounding, by what is fastest on `device`.

    Only a Conv4 has twins. On a CPU its convolutions take over norms, and where they run one task after the other in
    full precision all blocks of a task are fused.

    Args:
        learner: left as it is; a twin made here earlier may be given again.
        device: where its inputs and parameters will lie.
        low_precision: whether it runs under `torch.autocast`.
        task_convolution: how tasks with weights of their own share a convolution; None for what suits most devices of
            the kind.

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
    on_cpu = torch.device(device).type == "cpu"
    one_by_one = task_convolution in (None, "loop") and not low_precision
    kind = (FusedConv4 if one_by_one else FoldedConv4) if on_cpu else Conv4
    twin = copy.copy(learner)
    twin.backbone = kind(learner.spec.input.shape, learner.backbone.settings)
    twin.backbone.task_convolution = task_convolution
    return twin
