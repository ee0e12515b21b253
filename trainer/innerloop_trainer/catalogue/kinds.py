"""The kinds of things that are chosen by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from innerloop_learner.augmentations import augmentations
from innerloop_learner.backbones import backbones
from innerloop_learner.importances import importances
from innerloop_learner.noises import noises
from innerloop_learner.norms import norms
from innerloop_learner.objectives import objectives
from innerloop_learner.registry import Registry
from innerloop_learner.support_policies import support_policies
from innerloop_learner.transformations import transformations
from innerloop_learner.update_rules import update_rules
from innerloop_learner.weightings import weightings
from innerloop_trainer.outer_loop import estimators
from innerloop_trainer.search import searchers, spaces
from innerloop_trainer.teaching import teachings

FAMILIES: Mapping[str, str] = {
    "initialisation": "an initialisation that adapts well",
    "optimizer": "rates, or the optimizer itself",
    "choices": "discrete choices, such as what adapts",
    "metric": "an embedding, and how to compare in it",
    "memory": "a memory, or how to read examples",
    "weights": "to write or to solve for a classifier",
    "life-long": "features for learning classes one by one",
    "self-supervised": "features, without labels",
    "baseline": "features of a plain classifier, or nothing (baselines)",
}
"""The families of methods (`learner.Family`), by what they learn."""


@dataclass(frozen=True)
class Kind:
    """Things that are registered in one place and chosen in one way.

    Attributes:
        registry: where they are registered.
        title: what such a thing says or does.
        chosen_by: how a command takes one, with NAME in the place of its name.
        settings: class attribute that holds the dataclass of a thing's settings; empty if there are none.
        set_by: how a command takes a setting, with NAME, SETTING and VALUE in their places.
        taken_by: class attribute of methods that says whether they take such a thing; empty if all do, or if a method
            has one of its own.
    """

    registry: Registry[Any]
    title: str
    chosen_by: str
    settings: str = ""
    set_by: str = ""
    taken_by: str = ""


KINDS: Sequence[Kind] = (
    Kind(
        estimators,
        "how training finds the way",
        "--estimator NAME",
        "settings_class",
        "--set SETTING=VALUE",
    ),
    Kind(update_rules, "how an inner step changes weights", "--set update_rule=NAME"),
    Kind(weightings, "what each support example counts", "--weighting NAME", taken_by="weighs_examples"),
    Kind(
        support_policies,
        "what is added to support sets",
        "--support-policy NAME",
        "settings_class",
        "--policy-set SETTING=VALUE",
        "augments_support",
    ),
    Kind(
        transformations,
        "how features vary in training",
        "--transform NAME",
        "settings_class",
        "--set SETTING=VALUE",
    ),
    Kind(
        teachings,
        "what is learned of teachers, too",
        "--teacher BUNDLE --teaching NAME",
        "settings_class",
        "--set SETTING=VALUE",
    ),
    Kind(importances, "what holds weights of a head that learns online", "--set importance=NAME"),
    Kind(noises, "noise in the inner loop", "--backbone-set noise=NAME", taken_by="takes_noise"),
    Kind(
        augmentations,
        "what is changed in training images",
        "--augment NAME",
        "strengths_class",
        "--augment NAME?SETTING=VALUE",
    ),
    Kind(
        backbones,
        "the network that gives features",
        "--backbone NAME",
        "settings_class",
        "--backbone-set SETTING=VALUE",
    ),
    Kind(spaces, "the networks that are searched", "innerloop search SEARCHER --space NAME"),
    Kind(
        searchers,
        "which network a search tries next",
        "innerloop search NAME",
        "settings_class",
        "--set SETTING=VALUE",
    ),
    Kind(norms, "how features are normalised", "--backbone-set norm=NAME"),
    Kind(
        objectives,
        "the outer loss, which the method chooses",
        "",
        "settings_class",
        "--set SETTING=VALUE",
    ),
)
"""All kinds but methods, which `FAMILIES` divides."""
