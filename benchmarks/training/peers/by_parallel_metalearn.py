"""Peer: parallel-metalearn's MAML class, by vmap or (`--sequential`) task by task."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import torch
from metalearn.algorithms.MAML import MAML
from metalearn.inner_optimizers import InnerSGD
from metalearn.loss import CategoricalAccuracy, CrossEntropy
from metalearn.model_wrappers import MAML_Model
from network import Conv4
from side import serve
from torch import Tensor, nn
from torch_side import TorchSide
from workload import RATE, Batch


class Wrapped(MAML_Model):
    """The network in the place of a backbone and a head, since queries come behind the support set."""

    def __init__(self, network: Conv4) -> None:
        super().__init__(backbone=network, head=nn.Identity())

    def forward(self, x: Tensor, **_: object) -> dict[str, Tensor]:
        """Logits."""
        return {"logits": self.backbone(x)}


class NoStep(torch.optim.Optimizer):
    """Leaves steps to the caller: the class asks its optimizer for one behind each gradient."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__(parameters, {})

    def step(self, closure: object = None) -> None:
        """Do nothing."""


class ParallelMetaLearn(TorchSide):
    """Its MAML class with a fixed inner rate, as its README shows."""

    backend = "vmap"
    native_norm = False
    scale = 1

    def prepare(self) -> None:
        """See TorchSide.prepare."""
        wrapped = Wrapped(self.network)
        self.maml = MAML(
            model=wrapped,
            optimizer=NoStep(list(self.network.parameters())),
            inner_optimizer=InnerSGD(wrapped.get_fast_weights(), inner_lr=RATE, learn_lr=False),
            support_loss_fn=CrossEntropy(metric_fn=CategoricalAccuracy()),
            inner_steps=self.workload.steps,
            backend=self.backend,
            device=self.device,
        )

    def backward(self, batch: Batch) -> float:
        """See TorchSide.backward."""
        support, support_labels, query, query_labels = (torch.from_numpy(array).to(self.device) for array in batch)
        images = torch.cat((support, query), dim=1)
        tasks = (support, {"labels": support_labels}, images, {"labels": query_labels})
        loss, _ = self.maml.step(iter([tasks]), training=True)
        return float(loss) * self.scale


class Sequential(ParallelMetaLearn):
    """The same task by task, which the package advises for few tasks and many steps.

    The loss that it tells is divided by the number of tasks twice; its gradient is right.
    """

    backend = "sequential"
    native_norm = True

    @property
    def scale(self) -> int:  # type: ignore[override]
        """What the loss is to be multiplied by."""
        return self.workload.tasks


if __name__ == "__main__":
    sequential = "--sequential" in sys.argv
    if sequential:
        sys.argv.remove("--sequential")
    serve(Sequential if sequential else ParallelMetaLearn)
