"""Untrained bundles to time: how long a model takes does not depend on what it has learned."""

from collections.abc import Mapping
from pathlib import Path

import torch

from innerloop_learner import Params, build_learner
from innerloop_learner.bundle import save_bundle
from innerloop_learner.manifest import Manifest, Provenance, TaskLimits
from innerloop_learner.spec import InputSpec, LearnerSpec

WAYS, SHOTS, QUERIES = 5, 1, 25
IMAGES = InputSpec((1, 28, 28), "uint8", scale=1 / 255)
INNER_LOOP = {"steps": 5, "rate": 0.01}

SPECS = {
    "maml": LearnerSpec("maml", IMAGES, max_ways=WAYS, settings=INNER_LOOP),
    "anil": LearnerSpec("anil", IMAGES, max_ways=WAYS, settings=INNER_LOOP),
    "protonet": LearnerSpec("protonet", IMAGES, max_ways=32),
}
"""Conv4-64 with max-pooling on 28x28 images: all weights adapt, the head adapts, nothing does."""


def initial_params(spec: LearnerSpec) -> Params:
    """The parameters that training would start from, the same every time."""
    return build_learner(spec).init(torch.Generator().manual_seed(0))


def write_bundle(path: Path, spec: LearnerSpec, params: Params) -> None:
    """Write parameters as a bundle of its folder's name, said to be trained for `WAYS` and `SHOTS`."""
    learner = build_learner(spec)
    limits = TaskLimits(WAYS, SHOTS, learner.default_steps, spec.max_ways, learner.max_steps)
    save_bundle(path, Manifest(path.name, spec, limits, Provenance("none", 0, 0, "", {})), params)


def write_bundles(folder: Path, specs: Mapping[str, LearnerSpec] = SPECS) -> Path:
    """Write a bundle for each of the specs, of its name; returns the folder."""
    for name, spec in specs.items():
        write_bundle(folder / name, spec, initial_params(spec))
    return folder
