"""Methods that compare examples, against their equations worked out one task and query at a time."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from by_hand import WAYS, answers, features, lstm_step, shuffled_episodes, vector_case
from torch import Tensor

from innerloop_learner import Params
from innerloop_learner.objectives import Stage
from innerloop_learner.objectives.query_loss import QueryLoss


def attention(params: Params, query: Tensor, memory: Tensor, labels: Tensor) -> Tensor:
    """Matching networks' probabilities [W] for one query's embedding."""
    scale = params["attention.log_scale"].exp()
    weights = (scale * torch.stack([F.cosine_similarity(query, example, dim=0) for example in memory])).softmax(0)
    return torch.stack([weights[labels == label].sum() for label in range(WAYS)])


def test_matching_networks_attend_by_cosine() -> None:
    case = vector_case("matching")
    params, episodes = case.params(), shuffled_episodes(case)
    logits = answers(case, params, episodes)
    for task in range(3):
        memory = features(params, episodes.support.x[task])
        for index, query in enumerate(features(params, episodes.query.x[task])):
            expected = attention(params, query, memory, episodes.support.y[task])
            torch.testing.assert_close(logits[task, index].softmax(0), expected)


def test_full_context_embeddings_read_the_support_set_both_ways() -> None:
    case = vector_case("matching-fce", reads=2)
    params, episodes = case.params(), shuffled_episodes(case)
    logits = answers(case, params, episodes)
    zeros = torch.zeros(1, 8, dtype=torch.float64)
    for task in range(3):
        plain = features(params, episodes.support.x[task])
        read = {}
        for name, order in (("forward", range(len(plain))), ("backward", reversed(range(len(plain))))):
            hidden, cell = zeros, zeros
            for place in order:
                hidden, cell = lstm_step(params, name, plain[None, place], hidden, cell)
                read[name, place] = hidden[0]
        memory = torch.stack([x + read["forward", i] + read["backward", i] for i, x in enumerate(plain)])
        for index, query in enumerate(features(params, episodes.query.x[task])):
            hidden, cell, recalled = zeros, zeros, zeros
            for _ in range(2):
                hidden, cell = lstm_step(params, "query", torch.cat([query[None], recalled], 1), hidden, cell)
                hidden = hidden + query
                recalled = (hidden @ memory.T).softmax(1) @ memory
            expected = attention(params, hidden[0], memory, episodes.support.y[task])
            torch.testing.assert_close(logits[task, index].softmax(0), expected)


def test_siamese_networks_compare_weighted_differences() -> None:
    case = vector_case("siamese", embedding=5)
    params, episodes = case.params(), shuffled_episodes(case)
    logits = answers(case, params, episodes)

    def embed(x: Tensor) -> Tensor:
        return (features(params, x) @ params["siamese.dense.weight"].T + params["siamese.dense.bias"]).sigmoid()

    losses = []
    for task in range(3):
        memory, labels = embed(episodes.support.x[task]), episodes.support.y[task]
        for index, query in enumerate(embed(episodes.query.x[task])):
            scores = (memory - query).abs() @ params["siamese.weights"] + params["siamese.shift"]
            expected = torch.stack([scores[labels == label].mean() for label in range(WAYS)])
            torch.testing.assert_close(logits[task, index], expected)
            same = F.one_hot(episodes.targets[task, index], WAYS).double()
            each = F.binary_cross_entropy_with_logits(expected, same, reduction="none")
            losses.append((each[same == 1].mean() + each[same == 0].mean()) / 2)
    loss = case.objective(params, episodes, Stage()).loss
    torch.testing.assert_close(loss, torch.stack(losses).mean())


def test_many_examples_are_compared_in_parts() -> None:
    case = vector_case("siamese", embedding=5)
    params, few = case.params(), case.episodes(shots=2)
    # Each example twenty times over: class means stay what they were.
    times = {name: getattr(few.support, name).repeat_interleave(20, dim=1) for name in ("x", "y", "mask")}
    many = replace(few, support=replace(few.support, **times))
    torch.testing.assert_close(answers(case, params, many), answers(case, params, few))


def test_siamese_networks_notice_that_training_diverged() -> None:
    objective = vector_case("siamese").objective
    assert isinstance(objective, QueryLoss)
    outputs = torch.full((1, 1, WAYS), torch.nan)
    assert objective.loss(outputs, torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.bool)).isnan()


def test_relation_networks_score_class_and_query_side_by_side() -> None:
    case = vector_case("relation", hidden=5)
    params, episodes = case.params(), shuffled_episodes(case)
    logits = answers(case, params, episodes)

    def layer(name: str, x: Tensor) -> Tensor:
        return x @ params[f"relation.{name}.weight"].T + params[f"relation.{name}.bias"]

    def norm(block: int, x: Tensor) -> Tensor:
        standard = (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()
        return standard * params[f"relation.norm{block}.weight"] + params[f"relation.norm{block}.bias"]

    losses = []
    for task in range(3):
        memory, labels = features(params, episodes.support.x[task]), episodes.support.y[task]
        for index, query in enumerate(features(params, episodes.query.x[task])):
            for label in range(WAYS):
                mean = memory[labels == label].mean(0)
                # The first layer on both side by side has the two layers' weights side by side.
                weight = torch.cat([params["relation.class.weight"], params["relation.query.weight"]], 1)
                bias = params["relation.class.bias"] + params["relation.query.bias"]
                pair = norm(0, weight @ torch.cat([mean, query]) + bias).relu()
                pair = norm(1, layer("block1", pair)).relu()
                score = layer("score", layer("hidden", pair).relu()).squeeze()
                torch.testing.assert_close(logits[task, index, label], score)
                right = float(episodes.targets[task, index] == label)
                losses.append((score.sigmoid() - right) ** 2)
    loss = case.objective(params, episodes, Stage()).loss
    torch.testing.assert_close(loss, WAYS * torch.stack(losses).mean())


@pytest.mark.parametrize("k", [1, 3, 50])
def test_nearest_neighbours_vote_by_distance(k: int) -> None:
    case = vector_case("knn", k=k)
    params, episodes = case.params(), shuffled_episodes(case)
    logits = answers(case, params, episodes)
    for task in range(3):
        memory = F.normalize(features(params, episodes.support.x[task]), dim=1)
        for index, query in enumerate(F.normalize(features(params, episodes.query.x[task]), dim=1)):
            distances = (memory - query).square().sum(1)
            votes = dict.fromkeys(range(WAYS), 0.0)
            for place in distances.argsort()[:k].tolist():
                votes[int(episodes.support.y[task, place])] += math.exp(-10 * distances[place].item())
            for label, vote in votes.items():
                if vote:
                    assert logits[task, index, label].item() == pytest.approx(math.log(vote), rel=1e-9)
            asked = [label for label, vote in votes.items() if vote]
            others = [label for label, vote in votes.items() if not vote]
            if others:
                assert logits[task, index, others].max() < logits[task, index, asked].min()
