"""Pre-trained baselines against their equations, and what their pre-training sees."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from by_hand import WAYS, answers, conv4_by_hand, features, shuffled_episodes, vector_case
from cases import TRAIN_CLASSES, Case
from torch import Tensor

from innerloop_learner import InputSpec, LearnerSpec, Params
from innerloop_learner.objectives import Stage, build_objective
from innerloop_learner.settings import SettingsError


def cosine_logits(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    return 10 * F.cosine_similarity(x.unsqueeze(1), weight.unsqueeze(0), dim=2) + bias


def inner_products(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    return x @ weight.T + bias


PRE_TRAINED = ("baseline", "baseline++", "nearest-centroid", "knn")
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


@pytest.mark.parametrize("method", PRE_TRAINED)
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


@pytest.mark.parametrize("method", PRE_TRAINED)
def test_the_classifier_of_training_classes_is_left_out_of_bundles_and_not_missed(method: str) -> None:
    case = vector_case(method)
    params, episodes = case.params(), case.episodes()
    kept: Params = {name: params[name] for name in case.learner.init(torch.Generator())}
    assert params.keys() - kept.keys() == {"classifier.weight", "classifier.bias"}
    assert torch.equal(answers(case, kept, episodes), answers(case, params, episodes))


def turning_case(method: str, norm: str, weight: float = 0.7) -> Case:
    """Conv4 on square images, which are also told apart by how far they are turned."""
    settings = {"width": 6, "downsample": "max_pool", "norm": norm}
    spec = LearnerSpec(method, InputSpec((2, 16, 16)), max_ways=WAYS, train_classes=TRAIN_CLASSES)
    return Case(replace(spec, backbone="conv4", backbone_settings=settings), {"rotation_weight": weight})


@pytest.mark.parametrize("norm", ["batch", "task"])
@pytest.mark.parametrize("method", PRE_TRAINED)
def test_turns_are_told_apart_by_features_that_upright_images_normalise(method: str, norm: str) -> None:
    case = turning_case(method, norm)
    params, episodes = case.params(), shuffled_episodes(case)
    assert episodes.classes is not None
    every = [torch.cat([episodes.support.x[task], episodes.query.x[task]]) for task in range(3)]
    labels = [torch.cat([episodes.support.y[task], episodes.targets[task]]) for task in range(3)]
    classify = LOGITS["baseline++" if method == "baseline++" else "baseline"]
    of_classes, of_turns = [], []
    for task in range(3):
        _, moments = conv4_by_hand(params, torch.cat(every) if norm == "batch" else episodes.support.x[task], None)
        upright, _ = conv4_by_hand(params, every[task], moments)
        logits = classify(params["classifier.weight"], params["classifier.bias"], upright)
        of_classes.append(F.cross_entropy(logits, episodes.classes[task][labels[task]]))
        for turns in range(4):
            x = every[task]
            for _ in range(turns):
                x = x.transpose(-2, -1).flip(-2)
            turned, _ = conv4_by_hand(params, x, moments)
            logits = inner_products(params["turns.weight"], params["turns.bias"], turned)
            of_turns.append(F.cross_entropy(logits, torch.full((len(x),), turns)))
    outcome = case.objective(params, episodes, Stage())
    torch.testing.assert_close(outcome.loss, torch.stack(of_classes).mean() + 0.7 * torch.stack(of_turns).mean())
    plain = build_objective(case.learner)(params, episodes, Stage())
    torch.testing.assert_close(plain.loss, torch.stack(of_classes).mean())
    torch.testing.assert_close(outcome.buffers, plain.buffers)


def test_padding_is_not_told_apart() -> None:
    case = turning_case("baseline", "task")
    params, episodes = case.params(), case.episodes()
    query = episodes.query
    fewer = replace(
        episodes, query=replace(query, x=query.x[:, :-1], mask=query.mask[:, :-1]), targets=episodes.targets[:, :-1]
    )
    masked = replace(episodes, query=replace(query, mask=query.mask.clone().index_fill(1, torch.tensor([-1]), False)))
    losses = [case.objective(params, each, Stage()).loss for each in (fewer, masked)]
    torch.testing.assert_close(losses[0], losses[1])


@pytest.mark.parametrize("method", PRE_TRAINED)
def test_the_classifier_of_turns_is_left_out_of_bundles_and_there_only_if_it_counts(method: str) -> None:
    case = turning_case(method, "batch")
    own = set(case.objective.init(torch.Generator()))
    assert own == {"classifier.weight", "classifier.bias", "turns.weight", "turns.bias"}
    assert not own & set(case.learner.init(torch.Generator()))
    without = build_objective(case.learner).init(torch.Generator())
    assert set(without) == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize("shape", [(6,), (1, 16, 12)])
def test_what_is_no_square_image_is_not_turned(shape: tuple[int, ...]) -> None:
    spec = LearnerSpec("baseline", InputSpec(shape), max_ways=WAYS, train_classes=TRAIN_CLASSES, backbone="mlp")
    learner = Case(spec).learner
    build_objective(learner)
    with pytest.raises(SettingsError, match=r"rotation_weight turns square images.*read images with \?size=N"):
        build_objective(learner, {"rotation_weight": 1.0})
    with pytest.raises(SettingsError, match=r"rotation_weight must be at least 0"):
        build_objective(learner, {"rotation_weight": -1.0})
