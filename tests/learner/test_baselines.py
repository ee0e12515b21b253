"""Pre-trained baselines against their equations, and what their pre-training sees."""

import pytest
import torch
import torch.nn.functional as F
from by_hand import WAYS, answers, features, shuffled_episodes, vector_case
from cases import TRAIN_CLASSES
from torch import Tensor

from innerloop_learner import Params
from innerloop_learner.objectives import Stage


def cosine_logits(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    return 10 * F.cosine_similarity(x.unsqueeze(1), weight.unsqueeze(0), dim=2) + bias


def inner_products(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    return x @ weight.T + bias


LOGITS = {"baseline": inner_products, "baseline++": cosine_logits}


@pytest.mark.parametrize("method", list(LOGITS))
def test_a_new_head_is_fine_tuned_on_features_that_stay(method: str) -> None:
    case = vector_case(method, steps=7, rate=0.05)
    params, episodes = case.params(), shuffled_episodes(case)
    logits = answers(case, params, episodes)
    for task in range(3):
        support, labels = features(params, episodes.support.x[task]), episodes.support.y[task]
        head = [params[name].clone().requires_grad_() for name in ("head.weight", "head.bias")]
        optimizer = torch.optim.SGD(head, lr=0.05)
        for _ in range(7):
            optimizer.zero_grad()
            F.cross_entropy(LOGITS[method](*head, support), labels).backward()
            optimizer.step()
        queries = features(params, episodes.query.x[task])
        torch.testing.assert_close(logits[task], LOGITS[method](*head, queries).detach())


def test_the_nearest_mean_of_unit_vectors_answers() -> None:
    case = vector_case("nearest-centroid")
    params, episodes = case.params(), shuffled_episodes(case)
    logits = answers(case, params, episodes)
    for task in range(3):
        support = F.normalize(features(params, episodes.support.x[task]), dim=1)
        queries = F.normalize(features(params, episodes.query.x[task]), dim=1)
        for label in range(WAYS):
            mean = support[episodes.support.y[task] == label].mean(0)
            torch.testing.assert_close(logits[task, :, label], -10 * (queries - mean).square().sum(1))


@pytest.mark.parametrize("method", ["baseline", "baseline++", "nearest-centroid", "knn"])
def test_pre_training_tells_all_training_classes_apart(method: str) -> None:
    case = vector_case(method)
    params, episodes = case.params(), shuffled_episodes(case)
    assert episodes.classes is not None
    classify = LOGITS["baseline++" if method == "baseline++" else "baseline"]
    losses = []
    for task in range(3):
        x = torch.cat([episodes.support.x[task], episodes.query.x[task]])
        labels = torch.cat([episodes.support.y[task], episodes.targets[task]])
        logits = classify(params["classifier.weight"], params["classifier.bias"], features(params, x))
        assert logits.shape[1] == TRAIN_CLASSES
        losses.append(F.cross_entropy(logits, episodes.classes[task][labels]))
    loss = case.objective(params, episodes, Stage()).loss
    torch.testing.assert_close(loss, torch.stack(losses).mean())


@pytest.mark.parametrize("method", ["baseline", "baseline++", "nearest-centroid", "knn"])
def test_the_classifier_of_training_classes_is_left_out_of_bundles_and_not_missed(method: str) -> None:
    case = vector_case(method)
    params, episodes = case.params(), case.episodes()
    kept: Params = {name: params[name] for name in case.learner.init(torch.Generator())}
    assert params.keys() - kept.keys() == {"classifier.weight", "classifier.bias"}
    assert torch.equal(answers(case, kept, episodes), answers(case, params, episodes))
