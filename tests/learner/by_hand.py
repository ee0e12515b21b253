"""What tests that work methods out by hand share: a small learner on vectors, and its features task by task."""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from cases import TRAIN_CLASSES, Case
from torch import Tensor

from innerloop_learner import Episodes, InputSpec, LearnerSpec, Params
from innerloop_learner.learner import methods
from innerloop_learner.settings import described

WAYS = 3


def vector_case(method: str, max_ways: int = WAYS, **settings: Any) -> Case:
    """A method on vectors of six numbers, with a perceptron of two layers; settings of its own and of its objective."""
    own = {each.name for each in described(methods[method].settings_class)}
    return Case(
        LearnerSpec(
            method,
            InputSpec((6,)),
            max_ways=max_ways,
            train_classes=TRAIN_CLASSES,
            backbone="mlp",
            backbone_settings={"widths": [10, 8]},
            settings={name: value for name, value in settings.items() if name in own},
        ),
        {name: value for name, value in settings.items() if name not in own},
    )


def shuffled_episodes(case: Case) -> Episodes:
    """Tasks whose examples come in no order of classes."""
    episodes = case.episodes()
    support = episodes.support
    order = torch.randperm(support.x.shape[1], generator=torch.Generator().manual_seed(3))
    return replace(episodes, support=replace(support, x=support.x[:, order], y=support.y[:, order]))


def features(params: Params, x: Tensor) -> Tensor:
    """Features [N, F] of vectors [N, 6]."""
    for layer in range(2):
        x = (x @ params[f"linear{layer}.weight"].T + params[f"linear{layer}.bias"]).relu()
    return x


def conv4_by_hand(params: Params, x: Tensor, moments: list[tuple[Tensor, Tensor]] | None) -> tuple[Tensor, list]:
    """Features of Conv4 with max-pooling, written with PyTorch's own layers, and the mean and variance of each norm.

    Args:
        params: parameters of the network.
        x: images [N, C, H, W].
        moments: means and variances to normalise by; None for those of these images.
    """
    used = []
    for block in range(4):
        x = F.conv2d(x, params[f"conv{block}.weight"], params[f"conv{block}.bias"], padding=1)
        mean, variance = moments[block] if moments else (x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0))
        used.append((mean, variance))
        weight, bias = params[f"norm{block}.weight"], params[f"norm{block}.bias"]
        x = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt() * weight[:, None, None]
        x = F.max_pool2d(F.relu(x + bias[:, None, None]), 2)
    return x.flatten(1), used


def answers(case: Case, params: Params, episodes: Episodes) -> Tensor:
    """The learner's own logits [T, Q, W]."""
    with torch.no_grad():
        return case.learner.predict(params, case.learner.adapt(params, episodes.support).state, episodes.query)


def lstm_step(params: Params, name: str, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One step of PyTorch's own LSTM cell."""
    size = hidden.shape[-1]
    weight, bias = params[f"{name}.weight"], params[f"{name}.bias"]
    theirs = torch.nn.LSTMCell(x.shape[-1], size, dtype=x.dtype)
    # PyTorch's gates come in the order input, forget, new, output.
    order = [*range(2 * size), *range(3 * size, 4 * size), *range(2 * size, 3 * size)]
    with torch.no_grad():
        theirs.weight_ih.copy_(weight[order, : x.shape[-1]])
        theirs.weight_hh.copy_(weight[order, x.shape[-1] :])
        theirs.bias_ih.copy_(bias[order])
        theirs.bias_hh.zero_()
        return theirs(x, (hidden, cell))
