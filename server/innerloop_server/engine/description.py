"""Manifests to what the server says of models."""

from typing import Literal

from innerloop_learner.manifest import Manifest
from innerloop_server.domain.models import ModelDescription, ModelMetric


def describe(
    manifest: Manifest,
    *,
    ways_can_change: Literal["no", "fewer", "any"],
    order_matters: bool,
    gradients_at_serving: bool,
    default_steps: int,
    max_steps: int,
) -> ModelDescription:
    """The description of a model, from its manifest and what an engine knows of its learner."""
    limits, learner = manifest.limits, manifest.learner
    fixed_head = ways_can_change != "any"
    return ModelDescription(
        version=manifest.version,
        digest=manifest.digest,
        method=learner.method,
        task_kind=learner.task_kind,
        input_shape=learner.input.shape,
        input_dtype=learner.input.dtype,
        target_size=learner.target_size,
        trained_ways=limits.trained_ways,
        trained_shots=limits.trained_shots,
        trained_steps=limits.trained_steps,
        max_ways=min(limits.max_ways, learner.max_ways) if fixed_head else limits.max_ways,
        max_steps=min(limits.max_steps, max_steps),
        default_steps=default_steps,
        ways_can_change=ways_can_change,
        head_ways=learner.max_ways,
        order_matters=order_matters,
        gradients_at_serving=gradients_at_serving,
        metrics=tuple(
            ModelMetric(metric.name, metric.value, metric.confidence_interval, metric.protocol)
            for metric in manifest.metrics
        ),
    )
