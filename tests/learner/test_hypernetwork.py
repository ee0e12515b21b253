"""The CNAPs-like hypernetwork against its equations, worked out one task and class at a time."""

from dataclasses import replace

import torch
from by_hand import WAYS, answers, shuffled_episodes, vector_case
from cases import Case
from torch import Tensor

from innerloop_learner import Params


def normed_case() -> Case:
    plain = vector_case("cnaps", embedding=5, hidden=7).spec
    return Case(replace(plain, backbone_settings={"widths": [10, 8], "norm": "layer"}))


def test_the_support_set_writes_modulation_and_head() -> None:
    case = normed_case()
    params, episodes = case.params(), shuffled_episodes(case)
    logits = answers(case, params, episodes)

    def layer(name: str, x: Tensor) -> Tensor:
        return x @ params[f"hyper.{name}.weight"].T + params[f"hyper.{name}.bias"]

    def features(norms: Params, x: Tensor) -> Tensor:
        for number in range(2):
            x = x @ params[f"linear{number}.weight"].T + params[f"linear{number}.bias"]
            x = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
            x = (x * norms[f"norm{number}.weight"] + norms[f"norm{number}.bias"]).relu()
        return x

    for task in range(3):
        embedded = layer("embedding", features(params, episodes.support.x[task])).relu().mean(0)
        norms = {}
        for number in range(2):
            weight, bias = f"norm{number}.weight", f"norm{number}.bias"
            norms[weight] = params[weight] * (1 + params[f"hyper.{weight}.modulation"] @ embedded)
            norms[bias] = params[bias] + params[f"hyper.{bias}.modulation"] @ embedded
        support, labels = features(norms, episodes.support.x[task]), episodes.support.y[task]
        queries = features(norms, episodes.query.x[task])
        for label in range(WAYS):
            mean = support[labels == label].mean(0)
            hidden = layer("hidden", mean).relu()
            expected = queries @ (mean + layer("weight", hidden)) + layer("bias", hidden)
            torch.testing.assert_close(logits[task, :, label], expected)
