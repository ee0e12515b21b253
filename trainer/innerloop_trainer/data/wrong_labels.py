"""Wrong labels in support sets, as tired people give them."""

import torch
from torch import Tensor


def mislabelled(labels: Tensor, ways: int, wrong: Tensor, generator: torch.Generator) -> Tensor:
    """Labels of which some are wrong, in every class of a task the same number; classes keep their sizes.

    Each wrong label is one that an example of another class of the task has lost, so the wrong examples of a class may
    be of several others.

    Args:
        labels: [T, S] int64 in `0 .. ways - 1`, equally many of each.
        ways: number of classes W, at least 2.
        wrong: number of wrong labels of each class [T], at most as many as a class has.
        generator: generator on the device of the labels.

    Example:
        >>> labels = torch.tensor([[0, 0, 0, 1, 1, 1]])
        >>> given = mislabelled(labels, 2, torch.tensor([1]), torch.Generator().manual_seed(0))
        >>> (given != labels).sum().item(), given[0].bincount().tolist()
        (2, [3, 3])
    """
    tasks, examples = labels.shape
    shots = examples // ways
    keys = torch.rand(labels.shape, generator=generator, device=labels.device)
    places = (labels + keys).argsort(1)  # classes one after the other, the examples of each in random order
    # A cycle through all classes, for each place of a class: no class keeps its own example.
    cycle = torch.rand(tasks, shots, ways, generator=generator, device=labels.device).argsort(-1)
    others = torch.empty_like(cycle).scatter(-1, cycle, cycle.roll(-1, -1))  # [T, shots, W]
    own = torch.arange(ways, device=labels.device)
    is_wrong = torch.arange(shots, device=labels.device).unsqueeze(-1) < wrong.view(-1, 1, 1)
    given = torch.where(is_wrong, others, own).transpose(1, 2).flatten(1)  # as `places`
    return torch.empty_like(labels).scatter(1, places, given)


def by_appearance(labels: Tensor, ways: int) -> Tensor:
    """The rank of each class [T, W] by its first appearance among labels [T, S], which have all of them."""
    appears = labels.unsqueeze(-1) == torch.arange(ways, device=labels.device)
    ranks: Tensor = appears.int().argmax(1).argsort(1).argsort(1)
    return ranks
