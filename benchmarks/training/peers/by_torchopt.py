"""Peer: TorchOpt's differentiable optimizer."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import torch.nn.functional as F
import torchopt
from side import serve
from torch import Tensor
from torch_side import OneByOne, Task
from workload import RATE


class TorchOpt(OneByOne):
    """Steps the network itself and puts its state back after each task, as TorchOpt's example of MAML does."""

    def query_loss(self, task: Task) -> Tensor:
        """See OneByOne.query_loss."""
        optimizer = torchopt.MetaSGD(self.network, lr=RATE)
        before = torchopt.extract_state_dict(self.network, by="reference")
        for _ in range(self.workload.steps):
            optimizer.step(F.cross_entropy(self.network(task.support), task.support_labels))
        loss = F.cross_entropy(self.network(task.images), task.query_labels)
        torchopt.recover_state_dict(self.network, before)
        return loss


if __name__ == "__main__":
    serve(TorchOpt)
