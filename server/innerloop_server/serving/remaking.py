"""Adaptations that one version of a model made, made again by another."""

import numpy as np

from innerloop_server.adaptations.recipe import Recipe
from innerloop_server.domain.models import ServedModel
from innerloop_server.domain.tasks import AdaptTask, SupportSet


class UnfitError(ValueError):
    """A recipe that a version of a model can't use; the message says why."""


def remake_task(model: ServedModel, recipe: Recipe, classes: tuple[str, ...]) -> AdaptTask:
    """The task that an Adapt request with the examples of a recipe would be for a model.

    Args:
        model: that shall adapt.
        recipe: of an adaptation that another version made.
        classes: its labels by class index; empty for regression.

    Raises:
        UnfitError: the model does not take such examples, or so many classes.
    """
    description, support = model.description, recipe.support
    traits = description.traits
    if recipe.input_format != description.input_format:
        raise UnfitError("the version takes other inputs")
    if (traits.task_kind == "classification") != bool(classes):
        raise UnfitError("the version answers another kind of question")
    if classes:
        support, classes = _renumbered(support, classes, in_order=traits.order_matters)
        most = traits.head_ways if traits.ways_can_change == "no" else traits.max_ways
        if len(classes) > most or (traits.ways_can_change == "no" and len(classes) != most):
            raise UnfitError(f"the version does not take {len(classes)} classes")
    elif support.y.shape[1:] != (traits.target_size,):
        raise UnfitError(f"the version takes {traits.target_size} targets an example")
    steps = min(recipe.steps, traits.max_steps) if recipe.steps_chosen else traits.default_steps
    return AdaptTask(model, support, classes, steps, recipe.steps_chosen)


def _renumbered(support: SupportSet, classes: tuple[str, ...], *, in_order: bool) -> tuple[SupportSet, tuple[str, ...]]:
    """The support set with its classes numbered as a model wants them: by first appearance, or by their labels."""
    numbers = (
        list(dict.fromkeys(support.y.tolist())) if in_order else sorted(range(len(classes)), key=classes.__getitem__)
    )
    places = np.empty(len(classes), np.int64)
    places[numbers] = np.arange(len(classes))
    return SupportSet(support.x, places[support.y], support.ways), tuple(classes[number] for number in numbers)
