"""Tiny untrained bundles: real learners, real files, milliseconds to adapt."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from innerloop_learner.bundle import load_bundle, save_bundle
from innerloop_learner.calibration import COVERAGES, Calibration, TaskCalibration
from innerloop_learner.encoders import FrozenEncoder
from innerloop_learner.learner import build_learner, methods
from innerloop_learner.manifest import Manifest, Metric, Provenance, TaskLimits
from innerloop_learner.settings import StepSettings
from innerloop_learner.spec import InputSpec, LearnerSpec

IMAGE = (1, 8, 8)
MAX_WAYS = 32
FIXED_WAYS = 5

IMAGES = InputSpec(IMAGE, "uint8", mean=(0.5,), std=(0.5,), scale=1 / 255)
PROTOTYPES = LearnerSpec("protonet", IMAGES, max_ways=MAX_WAYS, backbone="mlp", backbone_settings={"widths": [16]})
WEIGHING = replace(PROTOTYPES, weighting="leave_one_out")
# Steps take about a millisecond each, so that a request can be made to last.
GRADIENTS = LearnerSpec(
    "maml",
    IMAGES,
    max_ways=FIXED_WAYS,
    backbone="mlp",
    backbone_settings={"widths": [16]},
    settings={"steps": 3, "max_steps": 100_000, "rate": 0.01},
)
REGRESSION = LearnerSpec(
    "maml",
    InputSpec((1,)),
    task_kind="regression",
    max_ways=0,
    target_size=1,
    backbone="mlp",
    backbone_settings={"widths": [16]},
    settings={"steps": 2, "rate": 0.01},
)

SMALL = {
    **{method: {"rate": 1.0} for method in ("anml", "oml")},
    "mann": {"hidden": 16, "slots": 12, "width": 8},
    "snail": {"filters": 8, "context": 8},
}
"""Settings of large methods, to be quick, and of those that learn little from the few examples of a test."""


def small_settings(method: str, **of_steps: Any) -> dict[str, Any]:
    """Settings that make a method quick: those of `SMALL`, or two inner steps and what is said `of_steps`."""
    has_steps = issubclass(methods[method].settings_class, StepSettings)
    return {"steps": 2, **of_steps} if has_steps else dict(SMALL.get(method, {}))


def write_bundle(path: Path, spec: LearnerSpec, seed: int = 0) -> Manifest:
    """Save an untrained learner as a bundle."""
    learner = build_learner(spec)
    manifest = Manifest(
        name=path.name,
        learner=spec,
        limits=TaskLimits(5, 1, learner.default_steps, spec.max_ways, learner.max_steps),
        provenance=Provenance("none", seed, 0, "2026-01-01T00:00:00", {}),
        metrics=[Metric("accuracy", 0.2, 0.01, "inductive, 5-way 1-shot, untrained")],
    )
    return save_bundle(path, manifest, learner.init(torch.Generator().manual_seed(seed)))


def write_weighing(path: Path) -> None:
    """Save a learner that weighs its examples as a bundle, and not all the same, as an untrained one does."""
    write_bundle(path, WEIGHING)
    plain = load_bundle(path)
    said = {"weighting.out.weight": torch.randn(16, generator=torch.Generator().manual_seed(0))}
    save_bundle(path, plain.manifest, {**plain.params, **said})


def write_encoded(path: Path, method: str, encoder: FrozenEncoder, **settings: Any) -> None:
    """Save an untrained learner behind an encoder as a bundle."""
    spec = LearnerSpec(method, InputSpec((encoder.spec.features,)), max_ways=5, backbone="adapter", settings=settings)
    write_bundle(path, spec)
    plain = load_bundle(path)
    save_bundle(path, replace(plain.manifest, encoder=encoder.spec), plain.params, encoder.files)


def write_models(folder: Path) -> Path:
    """One bundle of each kind: "prototypes", "gradients" and "regression"."""
    write_bundle(folder / "prototypes", PROTOTYPES)
    write_bundle(folder / "gradients", GRADIENTS)
    write_bundle(folder / "regression", REGRESSION)
    return folder


def a_calibration(ways: int = 3, *, temperature: float = 2.0) -> Calibration:
    """A made-up calibration, by which about half of all answers are sure."""
    quantiles = tuple(np.linspace(-1.0, 3.0, len(COVERAGES)).tolist())
    return Calibration(
        [TaskCalibration(ways, 1, temperature, (0.5, 0.5, 0.1), 0.2, (0.1, 0.2, 0.5, 0.8, 0.9), quantiles)],
        "validation split of nothing",
        100,
    )


def write_calibrated(path: Path, spec: LearnerSpec, seed: int = 0) -> Manifest:
    """Save an untrained learner as a bundle that is calibrated."""
    write_bundle(path, spec, seed)
    plain = load_bundle(path)
    calibration = a_calibration()
    if spec.task_kind == "regression":
        first = replace(calibration.tasks[0], ways=0, temperature=1.0, weights=(), thresholds=(), variance=2.25)
        calibration = replace(calibration, tasks=[first])
    return save_bundle(path, replace(plain.manifest, calibration=calibration), plain.params)
