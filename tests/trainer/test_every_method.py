"""Every registered method can be trained, saved and loaded again by the trainer."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bundles import small_settings
from runs import DIGITS, SINUSOID, train

from innerloop_learner.bundle import load_bundle
from innerloop_learner.learner import methods
from innerloop_trainer.config import TrainingConfig


def small(config: TrainingConfig, method: str, **of_steps: Any) -> TrainingConfig:
    settings = small_settings(method, max_steps=4, **of_steps)
    return replace(config, method=method, settings=settings, iterations=2, validate_every=2, validation_episodes=2)


@pytest.mark.parametrize("method", list(methods))
def test_classification_trains_to_a_bundle(method: str, tmp_path: Path) -> None:
    run = train(replace(small(DIGITS, method), backbone_settings={"width": 8, "norm": "task"}), tmp_path)
    bundle = load_bundle(run.bundle)
    assert bundle.learner.info.name == method
    assert bundle.params.keys() == bundle.learner.init(torch.Generator()).keys()


@pytest.mark.parametrize("method", [name for name in methods if "regression" in methods[name].info.tasks])
def test_regression_trains_to_a_bundle(method: str, tmp_path: Path) -> None:
    config = small(SINUSOID, method, rate=0.001)
    assert load_bundle(train(config, tmp_path).bundle).learner.spec.task_kind == "regression"
