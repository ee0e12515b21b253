"""Peer: higher, a stateless copy of the module and a differentiable optimizer."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import higher
import torch
import torch.nn.functional as F
from side import serve
from torch import Tensor
from torch_side import OneByOne, Task
from workload import RATE


class Higher(OneByOne):
    """Adapts a copy of the network by higher's optimizer, as the README of higher shows for MAML."""

    def query_loss(self, task: Task) -> Tensor:
        """See OneByOne.query_loss."""
        sgd = torch.optim.SGD(self.network.parameters(), lr=RATE)
        with higher.innerloop_ctx(self.network, sgd, copy_initial_weights=False) as (network, optimizer):
            for _ in range(self.workload.steps):
                optimizer.step(F.cross_entropy(network(task.support), task.support_labels))
            return F.cross_entropy(network(task.images), task.query_labels)


if __name__ == "__main__":
    serve(Higher)
