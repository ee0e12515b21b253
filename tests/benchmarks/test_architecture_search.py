"""The benchmark of architecture search: its networks are trained as those of a search, and its regrets are regrets."""

import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from innerloop_trainer.config import TrainingConfig
from innerloop_trainer.data import load_source
from innerloop_trainer.plan import make_plan
from innerloop_trainer.runs.folder import RunFolder
from innerloop_trainer.runs.prepare import prepare
from innerloop_trainer.search import spaces

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "architecture_search"


@pytest.fixture(name="modules", scope="module")
def _modules() -> Iterator[dict[str, ModuleType]]:
    """The modules `every_network` and `replay` of the benchmark."""
    before = dict(sys.modules)
    sys.path.insert(0, str(FOLDER))
    import every_network  # type: ignore[import-not-found]
    import replay  # type: ignore[import-not-found]

    sys.path.remove(str(FOLDER))
    yield {"every_network": every_network, "replay": replay}
    for name in sys.modules.keys() - before.keys():
        if name in ("every_network", "replay"):
            del sys.modules[name]


def test_a_network_of_the_table_is_trained_as_a_trial_is(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    settings = spaces["edges"].settings((4, 1, 3))
    config = TrainingConfig(
        "protonet", "digits", ways=2, train_ways=2, queries=2, iterations=3, seed=5, validate_every=3,
        validation_episodes=2, backbone="cell", backbone_settings=settings,
    )  # fmt: skip
    params = modules["every_network"].trained(make_plan(config, load_source("digits"), "cpu"), 5).params
    training = prepare(config, RunFolder(tmp_path / "run"), torch.device("cpu")).training
    training.run(lambda _: None, lambda: False)
    state, _ = training.folder.load_latest(torch.device("cpu"))
    assert all(torch.equal(value, state[f"parameters.{name}"]) for name, value in params.items())


def test_regrets_never_rise_above_where_they_are_known_and_end_at_noise(
    modules: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    replay, generator = modules["replay"], torch.Generator().manual_seed(0)
    noise = torch.randn(125, 4, generator=generator) * 0.01
    networks: list[dict[str, Any]] = [
        {
            "architecture": list(architecture),
            "validation": (accuracy + noise[place, :2]).tolist(),
            "test": (accuracy + noise[place, 2:]).tolist(),
            "seconds": [1.0, 1.0],
        }
        for place, architecture in enumerate(modules["every_network"].architectures())
        for accuracy in (0.5 + 0.05 * sum(architecture) / 12,)
    ]
    monkeypatch.setattr(replay, "TRIALS", (5, 125))
    monkeypatch.setattr(replay, "REPLAYS", 2)
    monkeypatch.setattr(replay, "SEARCHERS", ("random",))
    measured = replay.measure_replay({"networks": networks, "seeds": 2})
    assert measured["test"]["random"]["125"]["mean"] == pytest.approx(measured["all"])
    assert 0 <= measured["all"] < measured["test"]["random"]["5"]["mean"]
    assert measured["seen"]["random"]["125"]["mean"] == 0 < measured["seen"]["random"]["5"]["mean"]
    assert measured["table"]["best_accuracy"] == max(statistics.mean(entry["test"]) for entry in networks)
    assert measured["table"]["between_seeds"] == pytest.approx(0.01, rel=0.3)
