"""Searches in the space `blocks` within the arithmetic of Conv4-64, and their results beside Conv4-64.

`protonet` on Omniglot with the split `random`. Ageing evolution tries networks for 40 outer steps each, by accuracy on
20-way 1-shot tasks of validation characters. One search allows as many multiply-adds as Conv4-64 with strides takes,
another one half of those of Conv4-64 with max-pooling. Then the best networks and both Conv4-64 are trained alike for
200 steps, with several seeds, and measured on the same 20-way 1-shot episodes of test characters.
"""

import json
import time
from pathlib import Path
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

TRIALS, SEEDS, EPISODES, ITERATIONS = 14, (0, 1), 600, 200
SEARCHED: dict[str, Any] = {
    "ways": 20,
    "train_ways": 20,
    "queries": 2,
    "iterations": 40,
    "learning_rate": 0.005,
    "validation_episodes": 40,
}
FINAL: dict[str, Any] = {**SEARCHED, "iterations": ITERATIONS}
MEASURED = EpisodeShape(20, 1, 1)
CONV4 = {"conv4-64 stride": "stride", "conv4-64 max_pool": "max_pool"}
LIMITS = {"found, all of stride": ("stride", 1.0), "found, half of max_pool": ("max_pool", 0.5)}
"""What each search may take: a share of the multiply-adds of a Conv4-64."""


def measure_useful(source: DataSource, name: str) -> dict[str, Any]:
    """What each search found, and how it compares."""
    torch.set_num_threads(1)
    networks: dict[str, dict[str, Any]] = {
        title: {"backbone": "conv4", "backbone_settings": {"downsample": downsample}}
        for title, downsample in CONV4.items()
    }
    searches = {title: _search(source, name, downsample, share) for title, (downsample, share) in LIMITS.items()}
    for title, search in searches.items():
        best = search.best
        assert best is not None
        networks[title] = {"backbone": search.space.backbone, "backbone_settings": search.settings_of(best)}
    accuracies = {title: _accuracies(source, name, title, network) for title, network in networks.items()}
    return {
        "trials": TRIALS,
        "search_seconds": {title: sum(tried.seconds for tried in search.tried) for title, search in searches.items()},
        "validation": {title: [tried.accuracy for tried in search.tried] for title, search in searches.items()},
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


def _search(source: DataSource, name: str, downsample: str, share: float) -> Search:
    """A finished search, which goes on where it was interrupted."""
    of_conv4 = _multiply_adds(source, {"backbone": "conv4", "backbone_settings": {"downsample": downsample}})
    folder = SearchFolder(RUNS / f"blocks-{downsample}")
    training = TrainingConfig("protonet", name, **SEARCHED)
    settings = {"members": 5}  # trials are few, so generations are small
    config = SearchConfig("evolution", "blocks", training, TRIALS, settings, int(share * of_conv4))
    search = Search(config, source, folder, torch.device("cpu"), resume=folder.exists)
    search.run(lambda _: None, lambda: False)
    return search


def _accuracies(source: DataSource, name: str, title: str, network: dict[str, Any]) -> Tensor:
    """Accuracies of test episodes, [seeds, episodes]; of a run that was made before, those from then."""
    rows = []
    for seed in SEEDS:
        file = Path(RUNS / f"{title.replace(',', '').replace(' ', '-')}-{seed}.json")
        if not file.is_file():
            plan = make_plan(TrainingConfig("protonet", name, seed=seed, **network, **FINAL), source, "cpu")
            began = time.process_time()
            params = trained(plan, seed).params
            measured = evaluate(plan.learner, params, source.test, MEASURED, split="test", episodes=EPISODES)
            content = {"seconds": time.process_time() - began, "accuracies": measured.values.tolist()}
            file.write_text(json.dumps(content))
        rows.append(json.loads(file.read_text())["accuracies"])
    return torch.tensor(rows, dtype=torch.float64)


def _summary(values: Tensor) -> dict[str, float]:
    """Mean over seeds and episodes, and its 95% confidence interval over episodes."""
    return {"mean": values.mean().item(), "confidence_interval": confidence_interval(values.mean(0))}
