"""The figures that a recipe leads to, as its file states them, and whether they were reached again."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import tomlkit
import torch

from innerloop_learner.bundle import Bundle
from innerloop_learner.disk import replace_file
from innerloop_learner.manifest import Metric
from innerloop_learner.settings import setting, with_settings
from innerloop_trainer.bundle_evaluation import evaluate_bundle
from innerloop_trainer.config import ConfigError
from innerloop_trainer.evaluation import Protocol
from innerloop_trainer.recipes.file import EXPECTED, RecipeFile
from innerloop_trainer.recipes.recipe import check_names

FIGURE = ("value", "confidence_interval")
"""Settings of an expected figure that measuring it fills in."""


@dataclass(frozen=True)
class Expected:
    """A figure that a recipe leads to, measured on test classes, and how it is measured.

    A run is repeated to the bit on the same machine only: other ones round otherwise, and training amplifies that. So
    the figure is reached again if its mean is as near as `tolerance` to the expected one.
    """

    ways: int | None = setting(None, "classes per task; None for as many as the model was trained for", least=2)
    shots: int | None = setting(None, "examples per class; None for as many as it was trained for", least=1)
    queries: int = setting(15, "queries per class", least=1)
    steps: int | None = setting(None, "inner steps; None for as many as is usual for the model", least=0)
    episodes: int = setting(1000, "tasks", least=2)
    protocol: Protocol = setting("inductive", "whether queries may normalise each other (transductive)")
    seed: int = setting(0, "seed of the tasks")
    value: float | None = setting(None, "mean over tasks of the accuracy, from 0 to 1, or of the mean squared error")
    confidence_interval: float | None = setting(None, "half width of its 95% confidence interval", least=0.0)
    tolerance: float = setting(0.01, "largest difference between this mean and one that counts as equal", least=0.0)


@dataclass(frozen=True)
class Repeated:
    """An expected figure, and the one that was measured.

    Attributes:
        expected: figure that the recipe's file states.
        measured: figure of the model that was trained by it.
    """

    expected: Expected
    measured: Metric

    @property
    def reproduced(self) -> bool:
        """Whether the means are as near to each other as they should be."""
        value = self.expected.value
        return value is not None and abs(self.measured.value - value) <= self.expected.tolerance


def expected_figures(recipe: RecipeFile, *, known: bool) -> list[Expected]:
    """The figures that the file of a recipe states.

    Args:
        recipe: the file's content.
        known: whether each must have its value and interval.

    Raises:
        ConfigError: there are none, there is no setting of a name, or a figure lacks its value.
        SettingsError: a setting has another type or is out of range.
    """
    if not recipe.expected:
        raise ConfigError(f"{recipe.path} expects no figure; say below [[{EXPECTED}]] what is measured")
    owner = f"{recipe.path}, [[{EXPECTED}]]"
    for table in recipe.expected:
        if not isinstance(table, dict):
            raise ConfigError(f"{recipe.path}: write figures below [[{EXPECTED}]]")
        check_names(table, [each.name for each in fields(Expected)], owner)
        if known and not all(name in table for name in FIGURE):
            raise ConfigError(f"{owner} has no {' and '.join(FIGURE)} yet; measure them with --record")
    return [with_settings(owner, Expected, table) for table in recipe.expected]


def measure_again(bundle: Bundle, data: str, expected: Sequence[Expected], device: torch.device) -> list[Repeated]:
    """Measure a model as the expected figures were.

    Args:
        bundle: the model, on that device.
        data: the data that it was trained on.
        expected: figures, each with how it is measured.
        device: device to measure on.

    Raises:
        the errors of `evaluate_bundle`.
    """
    return [Repeated(each, _measure(bundle, data, each, device)) for each in expected]


def _measure(bundle: Bundle, data: str, expected: Expected, device: torch.device) -> Metric:
    figure = evaluate_bundle(
        bundle,
        data,
        device,
        split="test",
        ways=expected.ways,
        shots=expected.shots,
        queries=expected.queries,
        episodes=expected.episodes,
        seed=expected.seed,
        steps=expected.steps,
        protocol=expected.protocol,
    )
    return figure.metric


def record_figures(path: Path, repeated: Sequence[Repeated]) -> None:
    """Write what was measured into the file of a recipe as what it expects. Nothing else of the file changes.

    Raises:
        OSError: it can't be written; what was there still is.
    """
    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    tables: Any = document[EXPECTED]
    for table, each in zip(tables, repeated, strict=True):
        for name in FIGURE:
            table[name] = round(getattr(each.measured, name), 6)
    replace_file(path, tomlkit.dumps(document).encode())
