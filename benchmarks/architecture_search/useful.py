"""A search in the space `blocks`, within the arithmetic of Conv4-64, and its result beside Conv4-64.

`protonet` on Omniglot with the split `random`. Ageing evolution tries networks that take no more multiply-adds than
Conv4-64 with strides, for 80 outer steps each, by accuracy on 20-way 1-shot tasks of validation characters. Then the
best one and Conv4-64, with strides and with max-pooling, are trained alike for 250 steps, with several seeds, and
measured on the same 20-way 1-shot episodes of test characters. Random search has as many trials, as a control.
"""

import json
import time
from pathlib import Path
from typing import Any

import torch
from table import RUNS, trained
from torch import Tensor

from innerloop_learner.backbones import build_backbone
from innerloop_trainer.config import TrainingConfig
from innerloop_trainer.data import DataSource, EpisodeShape
from innerloop_trainer.evaluation import confidence_interval, evaluate
from innerloop_trainer.plan import make_plan
from innerloop_trainer.search import Search, SearchConfig, SearchFolder
from innerloop_trainer.search.arithmetic import multiply_adds

TRIALS, SEEDS, EPISODES, ITERATIONS = 18, (0, 1), 600, 250
SEARCHED: dict[str, Any] = {
    "ways": 20,
    "train_ways": 20,
    "queries": 2,
    "iterations": 80,
    "learning_rate": 0.003,
    "validation_episodes": 50,
}
FINAL: dict[str, Any] = {**SEARCHED, "iterations": ITERATIONS}
MEASURED = EpisodeShape(20, 1, 1)
CONV4 = {"conv4-64 stride": "stride", "conv4-64 max_pool": "max_pool"}


def measure_useful(source: DataSource, name: str, searcher: str) -> dict[str, Any]:
    """What a searcher found, and how it compares."""
    torch.set_num_threads(1)
    most = multiply_adds(build_backbone("conv4", source.input.shape, {"downsample": "stride"}), source.input.shape)
    search = _search(source, name, searcher, most)
    best = search.best
    assert best is not None
    found = {"backbone": search.space.backbone, "backbone_settings": search.settings_of(best)}
    networks = {searcher: found} | {
        title: {"backbone": "conv4", "backbone_settings": {"downsample": downsample}}
        for title, downsample in CONV4.items()
    }
    accuracies = {title: _accuracies(source, name, title, network) for title, network in networks.items()}
    return {
        "trials": len(search.tried),
        "most_multiply_adds": most,
        "search_seconds": sum(each.seconds for each in search.tried),
        "found": {**found, "validation": best.accuracy, "multiply_adds": best.multiply_adds},
        "networks": {
            title: {
                "multiply_adds": multiply_adds(
                    build_backbone(str(network["backbone"]), source.input.shape, dict(network["backbone_settings"])),
                    source.input.shape,
                ),
                "accuracy": _summary(accuracies[title]),
                "ahead_of": {
                    other: _summary(accuracies[title] - accuracies[other]) for other in CONV4 if other != title
                },
                "by_seed": [values.mean().item() for values in accuracies[title]],
            }
            for title, network in networks.items()
        },
    }


def _search(source: DataSource, name: str, searcher: str, most: int) -> Search:
    """A finished search, which goes on where it was interrupted."""
    folder = SearchFolder(RUNS / f"blocks-{searcher}")
    settings = {"members": 6} if searcher == "evolution" else {}  # few trials, so generations are small
    training = TrainingConfig("protonet", name, **SEARCHED)
    config = SearchConfig(searcher, "blocks", training, TRIALS, settings, most)
    search = Search(config, source, folder, torch.device("cpu"), resume=folder.exists)
    search.run(lambda _: None, lambda: False)
    return search


def _accuracies(source: DataSource, name: str, title: str, network: dict[str, Any]) -> Tensor:
    """Accuracies of test episodes, [seeds, episodes]; of a run that was made before, those from then."""
    rows = []
    for seed in SEEDS:
        file = Path(RUNS / f"{title.replace(' ', '-')}-{seed}.json")
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
