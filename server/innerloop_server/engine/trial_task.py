"""A random task that fits a model's description, to try the model."""

import numpy as np

from innerloop_server.domain.models import ModelDescription
from innerloop_server.domain.tasks import Array, SupportSet


def trial_support(model: ModelDescription) -> SupportSet:
    """Random examples of as many ways and shots as the model was trained for."""
    random, shots, traits = np.random.default_rng(0), max(model.trained_shots, 1), model.traits
    if traits.task_kind == "regression":
        size = max(model.trained_ways, 1) * shots
        return SupportSet(_inputs(random, size, model), np.zeros((size, traits.target_size), np.float32), 0)
    exactly = traits.ways_can_change == "no"
    ways = traits.head_ways if exactly else min(max(model.trained_ways, 2), traits.max_ways)
    return SupportSet(_inputs(random, ways * shots, model), np.arange(ways * shots) % ways, ways)


def _inputs(random: np.random.Generator, size: int, model: ModelDescription) -> Array:
    return random.integers(0, 2, (size, *model.input_shape)).astype(model.input_dtype)
