"""Counts what a backbone computes."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from innerloop_learner.backbones import Backbone

FLOPS_OF_A_MULTIPLY_ADD = 2


def multiply_adds(backbone: Backbone, input_shape: tuple[int, ...]) -> int:
    """Multiplications, each with an addition, that convolutions and linear layers take to embed one example.

    What is done element by element (norms, pooling, ReLU) is not counted, as is usual.

    Args:
        backbone: backbone whose weights all tasks share.
        input_shape: shape of one example.

    Example:
        >>> from innerloop_learner.backbones import build_backbone
        >>> multiply_adds(build_backbone("mlp", (3,), {"widths": [5, 2]}), (3,))
        25
    """
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        params = backbone.init(torch.Generator())
        backbone.apply(params, torch.empty(1, 1, *input_shape), torch.ones(1, 1))
    counts = counter.get_flop_counts()["Global"]
    # Norms average by a batched matrix product, which no layer with shared weights uses.
    flops: int = sum(count for operation, count in counts.items() if operation is not torch.ops.aten.bmm)
    return flops // FLOPS_OF_A_MULTIPLY_ADD
