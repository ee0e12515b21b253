"""Peer: a plain loop with torch.autograd and functional_call; `--channels-last` stores images so."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import torch
import torch.nn.functional as F
from side import serve
from torch import Tensor
from torch.func import functional_call
from torch_side import OneByOne, Task
from workload import RATE


class Autograd(OneByOne):
    """Takes the gradient with its graph, and steps along it."""

    def query_loss(self, task: Task) -> Tensor:
        """See OneByOne.query_loss."""
        return F.cross_entropy(self.logits(self.adapted(task), task.images), task.query_labels)

    def adapted(self, task: Task, twice: bool = True) -> dict[str, Tensor]:
        """The weights after the inner steps; `twice` says whether these will be differentiated."""
        weights = dict(self.network.named_parameters())
        for _ in range(self.workload.steps):
            loss = F.cross_entropy(self.logits(weights, task.support), task.support_labels)
            gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=twice)
            pairs = zip(weights.items(), gradients, strict=True)
            weights = {name: weight - RATE * gradient for (name, weight), gradient in pairs}
        return weights

    def logits(self, weights: dict[str, Tensor], images: Tensor) -> Tensor:
        """Logits of images by given weights."""
        logits: Tensor = functional_call(self.network, weights, (images,))
        return logits


class ChannelsLast(Autograd):
    """The same, with images stored channels last."""

    channels_last = True


if __name__ == "__main__":
    last = "--channels-last" in sys.argv
    if last:
        sys.argv.remove("--channels-last")
    serve(ChannelsLast if last else Autograd)
