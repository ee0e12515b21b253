"""The contrastive loss equals its equation, written out pair by pair."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from cases import CASES

from innerloop_learner.objectives import Stage
from innerloop_learner.settings import SettingsError
from innerloop_learner.tasks import Query

CASE = next(case for case in CASES if case.name == "simclr-classification-task")


def test_the_loss_is_that_of_every_pair_of_one_class_against_all_others() -> None:
    params, episodes = CASE.params(), CASE.episodes(tasks=2, queries=3, ways=4)
    learner, support, query = CASE.learner, episodes.support, episodes.query
    statistics = learner.backbone.apply(params, support.x, support.mask).statistics
    hidden = learner.backbone.apply(params, query.x, query.mask, statistics).values
    hidden = F.relu(hidden @ params["projection.hidden.weight"].T + params["projection.hidden.bias"])
    projected = hidden @ params["projection.out.weight"].T + params["projection.out.bias"]
    losses = []
    for task in range(2):
        for i in range(12):
            alike = [F.cosine_similarity(projected[task, i], projected[task, k], 0).item() / 0.5 for k in range(12)]
            others = math.log(sum(math.exp(alike[k]) for k in range(12) if k != i))
            same = [j for j in range(12) if j != i and episodes.targets[task, j] == episodes.targets[task, i]]
            losses.append(sum(others - alike[j] for j in same) / len(same))
    outcome = CASE.objective(params, episodes, Stage())
    assert outcome.loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-9)
    assert outcome.outputs.shape == (2, 12, 4)


def test_padding_changes_nothing() -> None:
    params, episodes = CASE.params(), CASE.episodes(ways=4)
    query = episodes.query
    padded = replace(
        episodes,
        query=Query(torch.cat([query.x, query.x[:, :3] + 1], 1), F.pad(query.mask, (0, 3), value=False)),
        targets=F.pad(episodes.targets, (0, 3)),
    )
    losses = [CASE.objective(params, each, Stage()).loss.item() for each in (episodes, padded)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


def test_a_single_query_per_class_is_refused() -> None:
    with pytest.raises(SettingsError, match="raise --queries to 2"):
        CASE.objective(CASE.params(), CASE.episodes(queries=1, ways=4), Stage())
