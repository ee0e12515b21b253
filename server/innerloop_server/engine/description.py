"""Manifests to what the server says of models."""

from innerloop_learner.manifest import Manifest
from innerloop_learner.traits import Traits
from innerloop_server.domain.models import ModelDescription, ModelMetric


def describe(manifest: Manifest, traits: Traits) -> ModelDescription:
    """The description of a model, from its manifest and the traits of its learner."""
    limits, learner = manifest.limits, manifest.learner
    return ModelDescription(
        version=manifest.version,
        digest=manifest.digest,
        method=learner.method,
        input_shape=learner.input.shape,
        input_dtype=learner.input.dtype,
        trained_ways=limits.trained_ways,
        trained_shots=limits.trained_shots,
        trained_steps=limits.trained_steps,
        traits=traits.limited(limits.max_ways, limits.max_steps),
        metrics=tuple(
            ModelMetric(metric.name, metric.value, metric.confidence_interval, metric.protocol)
            for metric in manifest.metrics
        ),
        calibrated=manifest.calibration is not None,
    )
