"""A task made up from what a model says of itself, to try the model out."""

import numpy as np

from innerloop_server.engine.interface import ModelDescription, SupportSet


def made_up_support(model: ModelDescription) -> SupportSet:
    """Random examples of as many ways and shots as the model was trained for."""
    ways = model.head_ways if model.ways_can_change == "no" else min(max(model.trained_ways, 2), model.max_ways)
    size = max(ways, 2) * max(model.trained_shots, 1)
    x = np.random.default_rng(0).integers(0, 2, (size, *model.input_shape)).astype(model.input_dtype)
    if model.task_kind == "regression":
        return SupportSet(x, np.zeros((size, model.target_size), np.float32), 0)
    return SupportSet(x, np.arange(size) % ways, ways)
