"""Task of every server: MAML on 5-way 1-shot tasks of 28x28 images with 25 queries, and the right answers."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from innerloop_learner.spec import InputSpec, LearnerSpec

sys.path.insert(0, str(Path(__file__).parent / "peers"))
import conv4
from untrained import initial_params, write_bundle

MODEL = "maml"
QUERIES = 5 * conv4.WAYS
TASKS = 32
"""Number of different tasks, which clients send in turn."""

LARGER = 30.0
"""Factor by which convolutions start larger than Glorot's. A norm follows them, so this only makes inner steps
relatively smaller. Otherwise an untrained inner loop amplifies rounding by flipping ReLUs and maxima, until servers
that compute the same differ by 0.1."""

SPEC = LearnerSpec(
    "maml",
    InputSpec(conv4.IMAGE, "uint8", mean=(conv4.MEAN,), std=(conv4.STD,), scale=conv4.SCALE),
    max_ways=conv4.WAYS,
    backbone="conv4",
    backbone_settings={"width": conv4.WIDTH, "downsample": "max_pool", "norm": "task"},
    settings={"steps": conv4.STEPS, "rate": conv4.RATE},
)


@dataclass(frozen=True)
class Task:
    """Random images: time does not depend on what they show.

    Attributes:
        support: uint8 [W, C, H, W].
        labels: of the support images [W], each class once.
        query: uint8 [Q, C, H, W].
    """

    support: NDArray[Any]
    labels: NDArray[Any]
    query: NDArray[Any]

    @property
    def names(self) -> list[str]:
        """Labels as a client's strings, which sort like the numbers."""
        return [str(label) for label in self.labels]

    @property
    def packed(self) -> bytes:
        """The request that peers take."""
        return conv4.pack(self.support, self.labels, self.query)


def make_tasks() -> list[Task]:
    """The tasks of every run."""
    random = np.random.default_rng(0)

    def images(count: int) -> NDArray[Any]:
        return random.integers(0, 256, (count, *conv4.IMAGE), np.uint8)

    return [Task(images(conv4.WAYS), random.permutation(conv4.WAYS), images(QUERIES)) for _ in range(TASKS)]


def write_model(models: Path, weights: Path) -> None:
    """Write a freshly initialised learner as a bundle below `models`, and the same weights as a plain state dict."""
    params = {name: value * LARGER if value.dim() == 4 else value for name, value in initial_params(SPEC).items()}
    write_bundle(models / MODEL, SPEC, params)
    names = {f"{kind}{block}": f"{kind}s.{block}" for kind in ("conv", "norm") for block in range(conv4.BLOCKS)}
    plain = {}
    for name, value in params.items():
        layer, _, role = name.partition(".")
        plain[f"{names.get(layer, layer)}.{role}"] = value
    torch.save(plain, weights)


def right_answers(tasks: list[Task], weights: Path) -> list[NDArray[Any]]:
    """Probabilities [Q, W] of each task, computed in float64 by the peers' network.

    Innerloop's server is checked against it as well, so two implementations that know nothing of each other agree.
    """
    answer = conv4.by_autograd(conv4.load(weights, "cpu").double())
    answers = []
    for task in tasks:
        support, query = (
            (torch.from_numpy(images).double() * conv4.SCALE - conv4.MEAN) / conv4.STD
            for images in (task.support, task.query)
        )
        answers.append(answer(support, torch.from_numpy(task.labels), query).numpy())
    return answers
