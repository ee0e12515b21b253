"""What every side trains: the same tasks, network and settings. Needs NumPy only, so that each environment reads it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

WAYS, QUERIES = 5, 15
WIDTH, BLOCKS = 64, 4
RATE, OUTER_RATE = 0.1, 1e-3
EPSILON = 1e-5
"""Added to variances by every norm."""

WEIGHTS = "weights.npz"

Weights = dict[str, NDArray[Any]]
"""Meta-parameters by name: convN.weight [O, I, 3, 3], convN.bias, normN.weight, normN.bias, head.weight, head.bias."""


class Batch(NamedTuple):
    """Tasks of one outer step.

    Attributes:
        support: images [T, S, C, H, W] float32, normalised.
        support_labels: classes [T, S] int64.
        query: images [T, Q, C, H, W].
        query_labels: classes [T, Q].
    """

    support: NDArray[Any]
    support_labels: NDArray[Any]
    query: NDArray[Any]
    query_labels: NDArray[Any]


@dataclass(frozen=True)
class Workload:
    """Second-order MAML on Conv4-64 with max-pooling and norms that take their statistics from the support set.

    Attributes:
        name: as tables show it.
        image: shape of an image.
        shots: support images per class.
        steps: inner steps.
        tasks: tasks per outer step.
        device: where it is trained, cpu or cuda. A GPU rounds factors of outer steps to TF32, on every side; compared
            gradients are exact.
    """

    name: str
    image: tuple[int, int, int]
    shots: int
    steps: int
    tasks: int
    device: str = "cpu"

    @property
    def support(self) -> int:
        """Support images of a task."""
        return WAYS * self.shots

    @property
    def features(self) -> int:
        """Features of an image behind the last block."""
        return WIDTH * (self.image[1] // 2**BLOCKS) * (self.image[2] // 2**BLOCKS)


def save_workload(folder: Path, workload: Workload, weights: Weights, batches: Batch) -> None:
    """Write what a side needs; the arrays of `batches` lead with one more dimension, the number of the outer step."""
    folder.mkdir(parents=True)
    (folder / "workload.json").write_text(json.dumps(asdict(workload)))
    np.savez(folder / WEIGHTS, **weights)  # type: ignore[arg-type]
    for name, values in batches._asdict().items():
        np.save(folder / f"{name}.npy", values)


def load_workload(folder: Path) -> tuple[Workload, Weights, Batch]:
    """What `save_workload` wrote; batches are read from the disk when they are used."""
    content = json.loads((folder / "workload.json").read_text())
    workload = Workload(**{**content, "image": tuple(content["image"])})
    with np.load(folder / WEIGHTS) as file:
        weights = dict(file)
    batches = Batch(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in Batch._fields))
    return workload, weights, batches


def batch_of(batches: Batch, step: int) -> Batch:
    """The tasks of outer step number `step`, again from the first when all were used, in memory."""
    return Batch(*(np.array(values[step % len(values)]) for values in batches))
