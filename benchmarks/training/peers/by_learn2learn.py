"""Peer: learn2learn's MAML class.

The package does not build on Python 3.11: C code that it ships for its data loaders is too old. Its MAML class is
plain Python. `run.py` unpacks the package, and here packages are put into place whose `__init__` imports nothing.
"""

import sys
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import torch.nn.functional as F
from side import serve
from torch import Tensor
from torch_side import OneByOne, Task
from workload import RATE

FOLDER = Path(sys.prefix) / "learn2learn"
"""The folder in the environment of the peers to which `run.py` unpacks learn2learn."""

for name, folder in {"learn2learn": FOLDER, "learn2learn.algorithms": FOLDER / "algorithms"}.items():
    sys.modules[name] = ModuleType(name)
    sys.modules[name].__path__ = [str(folder)]  # type: ignore[attr-defined]

from learn2learn.algorithms.maml import MAML  # noqa: E402


class Learn2Learn(OneByOne):
    """Adapts a clone of the network, as the README of learn2learn shows."""

    def prepare(self) -> None:
        """See TorchSide.prepare."""
        self.maml = MAML(self.network, lr=RATE)

    def query_loss(self, task: Task) -> Tensor:
        """See OneByOne.query_loss."""
        learner = self.maml.clone()
        for _ in range(self.workload.steps):
            learner.adapt(F.cross_entropy(learner(task.support), task.support_labels))
        return F.cross_entropy(learner(task.images), task.query_labels)


if __name__ == "__main__":
    serve(Learn2Learn)
