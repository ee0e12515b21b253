"""Writes the manifest of a run's bundle."""

import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version

import torch

from innerloop_learner.manifest import Manifest, Metric, Provenance
from innerloop_trainer.data import DataSource
from innerloop_trainer.plan import TrainingPlan
from innerloop_trainer.runs.folder import Progress
from innerloop_trainer.seen_classes import record_classes


def make_manifest(
    plan: TrainingPlan,
    source: DataSource,
    progress: Progress,
    metrics: Sequence[Metric],
    earlier: Mapping[str, str],
) -> Manifest:
    """Make the manifest of a run's best parameters.

    Args:
        plan: plan that the run was trained by.
        source: data that it was trained on.
        progress: how far the run has come; the manifest is of its best iteration.
        metrics: figures to record.
        earlier: digests of the classes that initial parameters and teachers were trained on, by split.
    """
    provenance = Provenance(
        data=source.description,
        seed=plan.config.seed,
        iterations=progress.best_iteration,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=made_with(),
        # A bundle may be given to others, so the path of the data on this machine is replaced by the source's name.
        training={**plan.config.to_json(), "data": source.name},
        options=source.options,
        classes=record_classes(source, earlier),
    )
    name = f"{source.name.partition(':')[0]}-{plan.config.method}"
    return Manifest(
        name=name,
        learner=plan.learner.spec,
        limits=plan.limits,
        provenance=provenance,
        metrics=metrics,
        encoder=None if source.encoder is None else source.encoder.spec,
    )


def made_with() -> dict[str, str]:
    """Versions of what makes bundles, as their manifests record them."""
    return {"innerloop": version("innerloop"), "torch": torch.__version__, "python": platform.python_version()}
