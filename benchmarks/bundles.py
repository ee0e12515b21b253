"""Untrained bundles to time: how long a model takes does not depend on what it has learned."""

from collections.abc import Mapping
from pathlib import Path

import torch

from innerloop_learner import build_learner
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


def write_bundles(folder: Path, specs: Mapping[str, LearnerSpec] = SPECS) -> Path:
    """Write a bundle for each of the specs, of its name; returns the folder."""
    for name, spec in specs.items():
        learner = build_learner(spec)
        manifest = Manifest(
            name=name,
            learner=spec,
            limits=TaskLimits(WAYS, SHOTS, learner.default_steps, spec.max_ways, learner.max_steps),
            provenance=Provenance("none", 0, 0, "", {}),
            metrics=[],
        )
        save_bundle(folder / name, manifest, learner.init(torch.Generator().manual_seed(0)))
    return folder
