"""Searches in the space `widths` within the arithmetic of Conv4-64, and their results beside Conv4-64.

`protonet` on Omniglot with the split `random`. Ageing evolution tries networks for 50 outer steps each, by accuracy on
20-way 1-shot tasks of validation characters. One search allows as many multiply-adds as Conv4-64 with strides takes,
another one half of those of Conv4-64 with max-pooling. The three best networks of each are trained for 200
steps, and the best one on validation characters is what was found. Then these and both Conv4-64 are trained alike for
200 steps, with other seeds, and measured on the same 20-way 1-shot episodes of test characters. Finished trainings are
kept in runs/architecture_search/.
"""

import json
import time
from typing import Any

import torch
from every_network import RUNS, trained
from torch import Tensor

from innerloop_learner.backbones import build_backbone
from innerloop_trainer.config import TrainingConfig
from innerloop_trainer.data import DataSource, EpisodeShape
from innerloop_trainer.evaluation import confidence_interval, evaluate
from innerloop_trainer.plan import make_plan
from innerloop_trainer.search import Search, SearchConfig, SearchFolder
from innerloop_trainer.search.arithmetic import multiply_adds

SPACE, TRIALS, FINALISTS = "widths", 30, 3
SEEDS, EPISODES, ITERATIONS = (0, 1), 600, 200
CHOOSING, CHOOSING_EPISODES = 1000, 200
"""Seed of the trainings by which one of the finalists is chosen, and number of their validation episodes."""

SEARCHED: dict[str, Any] = {
    "ways": 20,
    "train_ways": 20,
    "queries": 2,
    "iterations": 50,
    "learning_rate": 0.005,
    "validation_episodes": 50,
}
FINAL: dict[str, Any] = {**SEARCHED, "iterations": ITERATIONS}
MEASURED = EpisodeShape(20, 1, 1)
CONV4 = {"conv4-64 stride": "stride", "conv4-64 max_pool": "max_pool"}
LIMITS = {
    "found, all of stride": ("stride", 1.0),
    "found, half of max_pool": ("max_pool", 0.5),
}
"""What each search may take: a share of the multiply-adds of a Conv4-64."""


def measure_useful(source: DataSource, name: str) -> dict[str, Any]:
    """What each search found, and how it compares."""
    torch.set_num_threads(1)
    networks: dict[str, dict[str, Any]] = {
        title: {"backbone": "conv4", "backbone_settings": {"downsample": downsample}}
        for title, downsample in CONV4.items()
    }
    searches = {title: _search(source, name, title) for title in LIMITS}
    finals = {title: _finals(source, name, title, search) for title, search in searches.items()}
    for title, tried in finals.items():
        networks[title] = max(tried, key=lambda each: each["accuracy"])["network"]
    accuracies = {title: _accuracies(source, name, title, network) for title, network in networks.items()}
    return {
        "space": SPACE,
        "trials": TRIALS,
        "search_seconds": {title: sum(tried.seconds for tried in search.tried) for title, search in searches.items()},
        "validation": {title: [tried.accuracy for tried in search.tried] for title, search in searches.items()},
        "finals": finals,
        "networks": {
            title: {
                **network,
                "multiply_adds": _multiply_adds(source, network),
                "accuracy": _summary(accuracies[title]),
                "ahead_of": {
                    other: _summary(accuracies[title] - accuracies[other]) for other in CONV4 if other != title
                },
                "by_seed": [values.mean().item() for values in accuracies[title]],
            }
            for title, network in networks.items()
        },
    }


def _multiply_adds(source: DataSource, network: dict[str, Any]) -> int:
    shape = source.input.shape
    return multiply_adds(build_backbone(network["backbone"], shape, network["backbone_settings"]), shape)


def _search(source: DataSource, name: str, title: str) -> Search:
    """A finished search, which goes on where it was interrupted."""
    downsample, share = LIMITS[title]
    of_conv4 = _multiply_adds(source, {"backbone": "conv4", "backbone_settings": {"downsample": downsample}})
    folder = SearchFolder(RUNS / f"{SPACE}-{_slug(title)}")
    training = TrainingConfig("protonet", name, **SEARCHED)
    settings = {"members": 8}  # trials are few, so generations are small
    config = SearchConfig("evolution", SPACE, training, TRIALS, settings, int(share * of_conv4))
    search = Search(config, source, folder, torch.device("cpu"), resume=folder.exists)
    search.run(lambda _: None, lambda: False)
    return search


def _finals(source: DataSource, name: str, title: str, search: Search) -> list[dict[str, Any]]:
    """The best networks of a search with their accuracies on validation tasks after a longer training."""
    best = sorted(search.tried, key=lambda tried: tried.accuracy, reverse=True)[:FINALISTS]
    found = []
    for tried in best:
        network = {"backbone": search.space.backbone, "backbone_settings": search.settings_of(tried)}
        values = _run(source, name, f"{title} trial {tried.trial}", network, CHOOSING, "validation", CHOOSING_EPISODES)
        found.append({"trial": tried.trial, "accuracy": sum(values) / len(values), "network": network})
    return found


def _accuracies(source: DataSource, name: str, title: str, network: dict[str, Any]) -> Tensor:
    """Accuracies of test episodes, [seeds, episodes]."""
    rows = [_run(source, name, title, network, seed, "test", EPISODES) for seed in SEEDS]
    return torch.tensor(rows, dtype=torch.float64)


def _run(
    source: DataSource, name: str, title: str, network: dict[str, Any], seed: int, split: str, episodes: int
) -> list[float]:
    """Train a network, and measure it on episodes of a split; of a run that was made before, what was found then."""
    file = RUNS / f"{SPACE}-{_slug(title)}-{seed}.json"
    if not file.is_file():
        plan = make_plan(TrainingConfig("protonet", name, seed=seed, **network, **FINAL), source, "cpu")
        began = time.process_time()
        params = trained(plan, seed).params
        sampler = source.test if split == "test" else source.validation
        measured = evaluate(plan.learner, params, sampler, MEASURED, split=split, episodes=episodes)
        content = {"seconds": time.process_time() - began, "accuracies": measured.values.tolist()}
        file.write_text(json.dumps(content))
    accuracies: list[float] = json.loads(file.read_text())["accuracies"]
    return accuracies


def _slug(title: str) -> str:
    return title.replace(",", "").replace(" ", "-")


def _summary(values: Tensor) -> dict[str, float]:
    """Mean over seeds and episodes, and its 95% confidence interval over episodes."""
    return {"mean": values.mean().item(), "confidence_interval": confidence_interval(values.mean(0))}
