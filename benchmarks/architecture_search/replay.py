"""Searchers, replayed on the table of `every_network.py`: how far what they found is behind the best of 125 networks.

A searcher is told the validation accuracy that a network had with one seed. After each trial there are two regrets of
the network with the best validation accuracy so far. `seen` is what its validation accuracy lacks to the best one in
the table, which is what was searched for. `test` is what its test accuracy, a mean over seeds, lacks to the best test
accuracy: `all` is that of who has seen the validation accuracies of all networks, so what is left is noise.
"""

import math
import statistics
from collections.abc import Iterator
from typing import Any

import torch

from innerloop_trainer.search import spaces, untried
from innerloop_trainer.search.searchers import Wanted, build_searcher
from innerloop_trainer.search.spaces import Architecture

SEARCHERS = ("random", "evolution", "reinforce")
TRIALS = (10, 20, 30, 40)
REPLAYS = 100
REGRETS = ("seen", "test")


def measure_replay(table: dict[str, Any]) -> dict[str, Any]:
    """Regrets of each searcher, and how noisy the table is."""
    torch.set_num_threads(1)
    networks = {tuple(entry["architecture"]): entry for entry in table["networks"]}
    seeds = table["seeds"]
    replays = {name: [_replay(networks, name, seed, seed % seeds) for seed in range(REPLAYS)] for name in SEARCHERS}
    return {
        "replays": REPLAYS,
        **{
            regret: {
                name: {str(trials): _after(trials, regret, own) for trials in TRIALS} for name, own in replays.items()
            }
            for regret in REGRETS
        },
        "ahead_of_random": {
            name: {str(trials): _ahead(trials, replays["random"], own) for trials in TRIALS}
            for name, own in replays.items()
            if name != "random"
        },
        "all": statistics.mean(regret_of(networks, _best_seen(networks, seed)) for seed in range(seeds)),
        "table": _about(networks),
    }


def _after(trials: int, regret: str, replays: list[dict[str, list[float]]]) -> dict[str, float]:
    """The regret after so many trials."""
    return _summary([replay[regret][trials - 1] for replay in replays])


def _ahead(
    trials: int, of_random: list[dict[str, list[float]]], replays: list[dict[str, list[float]]]
) -> dict[str, float]:
    """How much less `seen` is than with random search after so many trials, on the same seed of the table."""
    pairs = zip(of_random, replays, strict=True)
    return _summary([random["seen"][trials - 1] - own["seen"][trials - 1] for random, own in pairs])


def regret_of(networks: dict[Architecture, dict[str, Any]], architecture: Architecture) -> float:
    """What the test accuracy of an architecture lacks to the best one."""
    best = max(statistics.mean(entry["test"]) for entry in networks.values())
    return best - statistics.mean(networks[architecture]["test"])


def _best_seen(networks: dict[Architecture, dict[str, Any]], seed: int) -> Architecture:
    return max(networks, key=lambda each: networks[each]["validation"][seed])


def _replay(
    networks: dict[Architecture, dict[str, Any]], name: str, seed: int, of_table: int
) -> dict[str, list[float]]:
    """Both regrets after each trial."""
    most = networks[_best_seen(networks, of_table)]["validation"][of_table]
    regrets: dict[str, list[float]] = {regret: [] for regret in REGRETS}
    best, test = -1.0, 0.0
    for architecture, accuracy in _searched(networks, name, seed, of_table):
        if accuracy > best:
            best, test = accuracy, regret_of(networks, architecture)
        regrets["seen"].append(most - best)
        regrets["test"].append(test)
    return {regret: own + own[-1:] * (max(TRIALS) - len(own)) for regret, own in regrets.items()}


def _searched(
    networks: dict[Architecture, dict[str, Any]], name: str, seed: int, of_table: int
) -> Iterator[tuple[Architecture, float]]:
    searcher = build_searcher(name, Wanted(spaces["edges"]), seed, {})
    known: dict[Architecture, float] = {}
    while len(known) < max(TRIALS) and (architecture := untried(searcher, known)) is not None:
        known[architecture] = networks[architecture]["validation"][of_table]
        searcher.learn(architecture, known[architecture])
        yield architecture, known[architecture]


def _about(networks: dict[Architecture, dict[str, Any]]) -> dict[str, Any]:
    """The best network, the spread of networks, and that of seeds."""
    tests = {architecture: statistics.mean(entry["test"]) for architecture, entry in networks.items()}
    best = max(tests, key=lambda each: tests[each])
    alive = [architecture for architecture, accuracy in tests.items() if accuracy > 0.1]  # others give constants
    within = [statistics.variance(networks[each]["test"]) for each in alive]
    seen = [networks[each]["validation"][0] for each in alive]
    return {
        "best": spaces["edges"].described(best),
        "best_accuracy": tests[best],
        "alive": len(alive),
        "median_accuracy": statistics.median(tests[each] for each in alive),
        "between_networks": statistics.stdev(tests[each] for each in alive),
        "between_seeds": math.sqrt(statistics.mean(within)),
        "validation_and_test": statistics.correlation(seen, [tests[each] for each in alive]),
        "seconds": sum(sum(entry["seconds"]) for entry in networks.values()),
    }


def _summary(values: list[float]) -> dict[str, float]:
    """Mean and half width of its 95% confidence interval."""
    half = 1.96 * statistics.stdev(values) / math.sqrt(len(values))
    return {"mean": statistics.mean(values), "confidence_interval": half}
