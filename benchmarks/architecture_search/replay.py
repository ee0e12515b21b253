"""Searchers, replayed on the table of `table.py`: how far what they found is behind the best of all 125 networks.

A searcher is told the validation accuracy that a network had with one seed. After each trial the regret is that of the
network with the best validation accuracy so far: what its test accuracy, a mean over seeds, lacks to the best test
accuracy in the table. `all` is the regret of who has seen every network's validation accuracy: what is left is noise.
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


def measure_replay(table: dict[str, Any]) -> dict[str, Any]:
    """Regrets of each searcher, and how noisy the table is."""
    torch.set_num_threads(1)
    networks = {tuple(entry["architecture"]): entry for entry in table["networks"]}
    seeds = table["seeds"]
    regrets = {name: [_regrets(networks, name, seed, seed % seeds) for seed in range(REPLAYS)] for name in SEARCHERS}
    return {
        "replays": REPLAYS,
        "regret": {
            name: {str(trials): _summary([replay[trials - 1] for replay in replays]) for trials in TRIALS}
            for name, replays in regrets.items()
        },
        "ahead_of_random": {
            name: {
                str(trials): _summary(
                    [a[trials - 1] - b[trials - 1] for a, b in zip(regrets["random"], replays, strict=True)]
                )
                for trials in TRIALS
            }
            for name, replays in regrets.items()
            if name != "random"
        },
        "all": statistics.mean(regret_of(networks, _best_seen(networks, seed)) for seed in range(seeds)),
        "table": _about(networks),
    }


def regret_of(networks: dict[Architecture, dict[str, Any]], architecture: Architecture) -> float:
    """What the test accuracy of an architecture lacks to the best one."""
    best = max(statistics.mean(entry["test"]) for entry in networks.values())
    return best - statistics.mean(networks[architecture]["test"])


def _best_seen(networks: dict[Architecture, dict[str, Any]], seed: int) -> Architecture:
    return max(networks, key=lambda each: networks[each]["validation"][seed])


def _regrets(networks: dict[Architecture, dict[str, Any]], name: str, seed: int, of_table: int) -> list[float]:
    """The regret after each trial."""
    regrets: list[float] = []
    best = -1.0
    for architecture, accuracy in _searched(networks, name, seed, of_table):
        if accuracy > best:
            best, regret = accuracy, regret_of(networks, architecture)
        regrets.append(regret)
    return regrets + regrets[-1:] * (max(TRIALS) - len(regrets))


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
