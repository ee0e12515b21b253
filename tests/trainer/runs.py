"""Small runs, trained in a second."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from innerloop_trainer.config import TrainingConfig
from innerloop_trainer.data import load_source
from innerloop_trainer.plan import make_plan
from innerloop_trainer.runs.conduct import Conduct
from innerloop_trainer.runs.folder import RunFolder
from innerloop_trainer.runs.training import Training
from innerloop_trainer.seeds import generator_for

CPU = torch.device("cpu")

SMALL = {"iterations": 12, "meta_batch": 2, "validate_every": 5, "validation_episodes": 4, "queries": 3}

DIGITS = TrainingConfig(
    method="maml",
    data="digits",
    ways=2,
    settings={"rate": 0.01, "steps": 2},
    backbone_settings={"width": 8, "norm": "batch"},
    **SMALL,
)
SINUSOID = TrainingConfig(method="maml", data="sinusoid", shots=5, settings={"rate": 0.01, "steps": 2}, **SMALL)


def training(
    config: TrainingConfig, folder: Path, *, resume: bool = False, save_minutes: float = 10, **conducted: Any
) -> Training:
    """A run, not begun or not continued yet."""
    plan = make_plan(config, load_source(config.data), CPU)
    initial = plan.init(generator_for(config.seed, "initialisation"))
    conduct = Conduct(save_minutes=save_minutes, **conducted)
    return Training(plan, RunFolder(folder), CPU, initial, resume=resume, conduct=conduct)


def train(
    config: TrainingConfig,
    folder: Path,
    *,
    stop_at: int | None = None,
    resume: bool = False,
    how: Callable[[], bool] = lambda: True,
    save_minutes: float = 10,
    **conducted: Any,
) -> RunFolder:
    """Train until it is finished, or until `stop_at` outer steps are taken; `how` is asked then whether to stop."""
    run = training(config, folder, resume=resume, save_minutes=save_minutes, **conducted)
    run.run(lambda _: None, lambda: run.progress.iteration == stop_at and how())
    return RunFolder(folder)
