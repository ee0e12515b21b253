"""Labels added round by round: those that the SDK suggests, random ones, and what the suggestion was chosen from."""

from collections.abc import Callable

import numpy as np
import torch
from asked import Asked
from episodes import Wrong, drawn
from numpy.typing import NDArray

from innerloop.suggestions import worth_labels
from innerloop_learner.calibration import probabilities
from innerloop_learner.tasks import Support
from innerloop_trainer.data import EpisodeShape, TaskSampler

WAYS, POOL, QUERIES = 5, 10, 9
ROUNDS, EACH_ROUND = 10, 2

Probabilities = NDArray[np.floating]
Choose = Callable[[Probabilities, int, np.random.Generator], list[int]]


def _margins(p: Probabilities) -> Probabilities:
    largest = np.sort(p, axis=1)[:, -2:]
    return largest[:, 1] - largest[:, 0]


def _k_center(p: Probabilities, n: int) -> list[int]:
    """The farthest from what is chosen, one after another, beginning with the least decided one."""
    chosen = [int(_margins(p).argmin())]
    while len(chosen) < n:
        distances = np.linalg.norm(p[:, None] - p[chosen], axis=-1).min(1)
        distances[chosen] = -1
        chosen.append(int(distances.argmax()))
    return chosen


CHOICES: dict[str, Choose] = {
    "random": lambda p, n, random: random.permutation(len(p))[:n].tolist(),
    "suggested": lambda p, n, _: worth_labels(p, n),
    "margin": lambda p, n, _: np.argsort(_margins(p), kind="stable")[:n].tolist(),
    "k-center": lambda p, n, _: _k_center(p, n),
    "most decided": lambda p, n, _: np.argsort(-_margins(p), kind="stable")[:n].tolist(),
}


def accuracies_by_round(asked: Asked, sampler: TaskSampler, episodes: int, seed: int) -> dict[str, Probabilities]:
    """Accuracy of each episode before the first round and after each [episodes, ROUNDS + 1], by how labels are chosen.

    Episodes begin with one example of each class, and choose from the same pool of POOL others of each class.
    """
    found: dict[str, list[Probabilities]] = {name: [] for name in CHOICES}
    shape = EpisodeShape(WAYS, 1, POOL + QUERIES)
    for batch, _ in drawn(sampler, shape, Wrong(), episodes, seed):
        for name, choose in CHOICES.items():
            found[name].append(_rounds(asked, choose, batch.support, batch.query.x, batch.targets, seed))
    return {name: np.concatenate(each) for name, each in found.items()}


def _rounds(
    asked: Asked, choose: Choose, support: Support, x: torch.Tensor, y: torch.Tensor, seed: int
) -> Probabilities:
    places = torch.arange(WAYS * (POOL + QUERIES)).view(WAYS, -1)  # queries lie grouped by class
    pool, queries = places[:, :POOL].flatten(), places[:, POOL:].flatten()
    random = np.random.default_rng(seed)
    x_all, y_all = torch.cat([support.x, x[:, pool]], 1), torch.cat([support.y, y[:, pool]], 1)
    labelled = torch.zeros(y_all.shape, dtype=torch.bool)
    labelled[:, :WAYS] = True
    accuracies = []
    for done in range(ROUNDS + 1):
        known = Support(x_all, y_all, labelled, support.ways, support.max_ways)
        right = asked.logits(known, x[:, queries]).argmax(-1) == y[:, queries].numpy()
        accuracies.append(right.mean(1))
        calibration = asked.calibration(WAYS, 1 + done * EACH_ROUND / WAYS)
        answers = probabilities(asked.logits(known, x[:, pool]), calibration)
        labelled = labelled.clone()
        for task, given in enumerate(answers):
            left = np.flatnonzero(~labelled[task, WAYS:].numpy())
            chosen = choose(given[left], EACH_ROUND, random)
            labelled[task, WAYS + torch.as_tensor(left[chosen])] = True
    return np.stack(accuracies, 1)
