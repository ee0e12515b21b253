"""Task states as inputs of exported graphs."""

from collections.abc import Mapping

import torch
from torch import Tensor

from innerloop_server.domain.tasks import Array

PREFIX = "state."
"""What names of graphs' inputs begin with that are tensors of a task state."""


def graph_inputs(state: Mapping[str, Tensor]) -> dict[str, Array]:
    """The tensors of a task state by the names of a graph's inputs, in the types that graphs have for them."""
    return {PREFIX + name: tensor.to(_graph_type(tensor.dtype)).numpy() for name, tensor in state.items()}


def _graph_type(dtype: torch.dtype) -> torch.dtype:
    if dtype.is_floating_point:
        return torch.float32
    return torch.bool if dtype == torch.bool else torch.int64
