"""A random task that fits a model's description, to try the model."""

import numpy as np

from innerloop_learner.run_limit import RunTooLongError
from innerloop_server.domain.models import ModelDescription
from innerloop_server.domain.tasks import Array, SupportSet
from innerloop_server.engine.interface import LoadedModel, LoadError, MemoryFullError

MOST_ELEMENTS = 2**26
"""Most elements of a trial's inputs: a manifest may claim any number of classes, shots and elements of an input."""


def trial_support(model: ModelDescription) -> SupportSet:
    """Random examples of as many ways and shots as the model was trained for, or of fewer if that were a lot."""
    random, traits = np.random.default_rng(0), model.traits
    most = max(MOST_ELEMENTS // max(np.prod(model.input_shape, dtype=int), 1), 1)
    if traits.task_kind == "regression":
        size = min(max(model.trained_ways, 1) * max(model.trained_shots, 1), most)
        return SupportSet(_inputs(random, size, model), np.zeros((size, traits.target_size), np.float32), 0)
    exactly = traits.ways_can_change == "no"
    ways = traits.head_ways if exactly else min(max(model.trained_ways, 2), traits.max_ways)
    shots = max(min(model.trained_shots, most // max(ways, 1)), 1)
    return SupportSet(_inputs(random, ways * shots, model), np.arange(ways * shots) % ways, ways)


def try_model(model: LoadedModel) -> None:
    """Adapt a model to a made-up task, by one step at most, and answer a query.

    Raises:
        LoadError: the model fails, takes too long, or gives answers that are not finite or of another shape.
    """
    description = model.description
    traits, support = description.traits, trial_support(description)
    try:
        width = description.head_width(support.ways)
        (adapted,) = model.adapt([support], min(traits.default_steps, 1), width)
        (answers,) = model.predict([adapted.state], [support.x[:1]])
    except MemoryFullError:  # it fails for callers too, who are told so
        return
    except RunTooLongError as error:
        raise LoadError(f"{model.name}: takes too long on a made-up task; export it again") from error
    except Exception as error:  # ONNX Runtime's errors have no base class
        raise LoadError(f"{model.name}: fails on a made-up task; export it again") from error
    given = answers.values if traits.task_kind == "regression" else answers.probabilities
    wanted = (1, traits.target_size if traits.task_kind == "regression" else support.ways)
    if given is None or given.shape != wanted or not np.isfinite(given).all():
        raise LoadError(f"{model.name}: answers a made-up task with no finite numbers {list(wanted)}; export it again")


def _inputs(random: np.random.Generator, size: int, model: ModelDescription) -> Array:
    return random.integers(0, 2, (size, *model.input_shape)).astype(model.input_dtype)
