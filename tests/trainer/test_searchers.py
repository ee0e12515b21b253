"""Searchers, where the score of every architecture is known, and the arithmetic and limits that they go by."""

import math
from collections.abc import Iterator
from itertools import islice, product

import pytest
import torch

from innerloop_learner.backbones import build_backbone
from innerloop_learner.learner import methods
from innerloop_learner.objectives import objectives
from innerloop_learner.settings import SettingsError, described
from innerloop_trainer.outer_loop import estimators
from innerloop_trainer.search import searchers, spaces, untried
from innerloop_trainer.search.admission import Admission
from innerloop_trainer.search.arithmetic import multiply_adds
from innerloop_trainer.search.searchers import Searcher, SearchError, Wanted, build_searcher
from innerloop_trainer.search.searchers import searcher as module
from innerloop_trainer.search.searchers.evolution import mutated
from innerloop_trainer.search.searchers.mixture import most_probable
from innerloop_trainer.search.searchers.reinforce import ReinforceSearch
from innerloop_trainer.search.spaces import Architecture

EDGES = spaces["edges"]
IMAGE = (1, 28, 28)
PROPOSING = ("random", "evolution", "reinforce")
VALUES = torch.randn(3, 5, generator=torch.Generator().manual_seed(7)).tolist()


def score(architecture: Architecture) -> float:
    """A score to which each choice adds its part."""
    return 0.5 + 0.1 * sum(VALUES[place][option] for place, option in enumerate(architecture))


BEST = max(map(score, product(range(5), repeat=3)))


def searched(searcher: Searcher) -> Iterator[Architecture]:
    """What a searcher tries, told the score each time."""
    known: dict[Architecture, float] = {}
    while (architecture := untried(searcher, known)) is not None:
        yield architecture
        known[architecture] = score(architecture)
        searcher.learn(architecture, known[architecture])


def made(name: str, seed: int = 0, wanted: Wanted | None = None, **settings: float) -> Searcher:
    return build_searcher(name, wanted or Wanted(EDGES), seed, settings)


@pytest.mark.parametrize("name", PROPOSING)
def test_a_searcher_goes_on_from_what_was_tried(name: str) -> None:
    first, again, other = (list(islice(searched(made(name, seed)), 30)) for seed in (3, 3, 4))
    assert first == again
    assert first != other
    assert len(set(first)) == 30


@pytest.mark.parametrize("name", PROPOSING)
def test_a_searcher_proposes_what_is_admitted_and_says_why_nothing_is(name: str) -> None:
    def without_conv(architecture: Architecture) -> bool:
        return max(architecture) < 3

    tried = list(islice(searched(made(name, wanted=Wanted(EDGES, without_conv))), 20))
    assert all(map(without_conv, tried))
    nothing = made(name, wanted=Wanted(EDGES, lambda _: False, lambda: "too small"))
    with pytest.raises(SearchError, match="too small"):
        nothing.propose()


@pytest.mark.parametrize("name", ["evolution", "reinforce"])
def test_a_searcher_that_learns_is_ahead_of_random_search(name: str) -> None:
    def regret(searcher: str, seed: int) -> float:
        return BEST - max(map(score, islice(searched(made(searcher, seed)), 30)))

    learned, random = (sum(regret(searcher, seed) for seed in range(8)) / 8 for searcher in (name, "random"))
    assert learned < 0.7 * random


def test_evolution_forgets_the_oldest_and_not_the_worst() -> None:
    searcher = made("evolution", members=2, candidates=2)
    best, other, third = (4, 4, 4), (0, 0, 0), (1, 1, 1)
    for architecture, value in ((best, 0.9), (other, 0.1), (third, 0.2)):
        searcher.learn(architecture, value)
    for _ in range(30):
        child = searcher.propose()
        alike = {each: sum(map(int.__eq__, child, each)) for each in (best, other, third)}
        assert alike[best] <= 1
        assert max(alike[other], alike[third]) == 2


def test_a_child_differs_in_one_choice_by_any_option() -> None:
    generator = torch.Generator().manual_seed(0)
    children = {mutated((0, 1, 2), EDGES.choices, generator) for _ in range(500)}
    one_apart = {each for each in product(range(5), repeat=3) if sum(map(int.__ne__, each, (0, 1, 2))) == 1}
    assert children == one_apart


def test_the_controller_follows_the_gradient_of_the_score() -> None:
    searcher = made("reinforce", controller_entropy=0.3, controller_units=4)
    assert isinstance(searcher, ReinforceSearch)
    generator = torch.Generator().manual_seed(0)
    for value in searcher.params.values():
        value.copy_(torch.randn(value.shape, generator=generator))
    taken, advantage = (2, 0, 4), 0.7
    found = searcher.gradient(taken, advantage)
    params = {name: value.detach().clone().requires_grad_() for name, value in searcher.params.items()}
    rows = [logits.log_softmax(0) for logits in searcher.distributions(params, taken)]
    likely = torch.stack([row[option] for row, option in zip(rows, taken, strict=True)]).sum()
    entropy = -torch.stack([(row.exp() * row).sum() for row in rows]).sum()
    expected = torch.autograd.grad(-(advantage * likely + 0.3 * entropy), list(params.values()), materialize_grads=True)
    for name, gradient in zip(params, expected, strict=True):
        torch.testing.assert_close(found[name], gradient)
    assert found["controller.weight"].abs().max() > 1e-3


def test_the_most_probable_architectures_come_first() -> None:
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    logits[:, 0] = 9.0  # "none" is not proposed, however much it weighs
    ranked = most_probable(logits, 10)

    def log_probability(architecture: Architecture) -> float:
        return sum(logits[place, option].item() for place, option in enumerate(architecture))

    every = sorted(product(range(1, 5), repeat=3), key=log_probability, reverse=True)
    assert ranked == every[:10]


@pytest.mark.parametrize("name", list(spaces))
def test_architectures_of_a_space_can_be_built_and_named(name: str) -> None:
    space, generator = spaces[name], torch.Generator().manual_seed(0)
    admission = Admission(lambda each: build_backbone(space.backbone, IMAGE, space.settings(each)), IMAGE, None)
    drawn = [space.draw(generator) for _ in range(20)]
    assert sum(map(admission.admits, drawn)) >= 5
    assert all(space.architecture(space.described(each)) == each for each in drawn)
    assert space.size == math.prod(len(choice.options) for choice in space.choices)


@pytest.mark.parametrize("name", ["blocks", "widths"])
def test_conv4_is_among_useful_networks(name: str) -> None:
    space = spaces[name]
    conv4_64 = {
        "depth": 4, "norm": "batch", "width": 64, "entry": "conv3x3", "downsample": "max_pool", "cell": "none"
    }  # fmt: skip
    chosen = {choice.name: conv4_64[choice.name.rstrip("0123456789")] for choice in space.choices}
    built = build_backbone("cell", IMAGE, space.settings(space.architecture(chosen)))
    conv4 = build_backbone("conv4", IMAGE, {"norm": "batch"})
    assert {name: value.shape for name, value in built.init(torch.Generator()).items()} == {
        name: value.shape for name, value in conv4.init(torch.Generator()).items()
    }


@pytest.mark.parametrize("norm", ["none", "task", "group"])
def test_multiply_adds_are_those_of_convolutions(norm: str) -> None:
    conv4 = build_backbone("conv4", IMAGE, {"width": 8, "downsample": "stride", "norm": norm})
    by_hand = 9 * (1 * 8 * 14**2 + 8 * 8 * 7**2 + 8 * 8 * 4**2 + 8 * 8 * 2**2)
    assert multiply_adds(conv4, IMAGE) == by_hand
    edges = [{"width": 8, "downsample": "stride", "edges": ["conv3x3", "skip", "conv1x1"]}]
    cell = build_backbone("cell", IMAGE, {"blocks": edges, "norm": norm})
    assert multiply_adds(cell, IMAGE) == 14**2 * (9 * 8 + 9 * 64 + 64)


def test_too_little_arithmetic_says_how_much_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_DRAWS", 100)
    admission = Admission(lambda each: build_backbone("cell", IMAGE, EDGES.settings(each)), IMAGE, 1000)
    with pytest.raises(
        SearchError, match=r"none takes as little as 1,000 multiply-adds, the least of them 1[0-9]{2},[0-9]{3}; raise"
    ):
        made("random", wanted=Wanted(EDGES, admission.admits, admission.refusal)).propose()


def test_images_that_are_too_small_are_said_to_be() -> None:
    space, tiny = spaces["blocks"], (1, 1, 1)
    admission = Admission(lambda _: build_backbone("cell", tiny, {"blocks": [{}]}), tiny, None)
    with pytest.raises(SearchError, match=r"no architecture of this space can be built: .* too small to be halved"):
        made("random", wanted=Wanted(space, admission.admits, admission.refusal)).propose()


def test_darts_searches_only_what_it_can_mix() -> None:
    with pytest.raises(SettingsError, match=r"searcher darts: it mixes operations .* search it with evolution"):
        made("darts", wanted=Wanted(spaces["blocks"]))


def test_more_candidates_than_members_are_refused() -> None:
    with pytest.raises(SettingsError, match="candidates must be at most the members, 4, not 5"):
        made("evolution", members=4, candidates=5)


@pytest.mark.parametrize("name", list(searchers))
def test_no_setting_of_a_searcher_is_called_as_one_of_a_method_or_its_training(name: str) -> None:
    settings = described(searchers[name].settings_class)
    methods_and_objectives = [
        kind for method in methods for kind in (methods[method], objectives[methods[method].info.objective])
    ]
    others = [estimators[each] for each in estimators if each != "darts"]  # `darts` hands its own on
    taken = {each.name for kind in (*methods_and_objectives, *others) for each in described(kind.settings_class)}
    assert taken.isdisjoint(each.name for each in settings)
    assert all(each.doc for each in settings)
