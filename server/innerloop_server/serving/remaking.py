"""Adaptations that one version of a model made, made again by another."""

from msgspec import structs

from innerloop_server.adaptations.recipe import Recipe
from innerloop_server.adaptations.record import AdaptationRecord
from innerloop_server.domain.examples import LabelledExamples
from innerloop_server.domain.models import ServedModel
from innerloop_server.domain.tasks import AdaptTask
from innerloop_server.engine.interface import AdaptedTask


class UnfitError(ValueError):
    """A recipe that a version of a model can't use; the message says why."""


def next_revision(before: AdaptationRecord, task: AdaptTask, adapted: AdaptedTask) -> AdaptationRecord:
    """The record of the revision that follows, made by adapting to a task."""
    description = task.model.description
    return structs.replace(
        before,
        revision=before.revision + 1,
        model_digest=description.digest,
        model_version=description.version,
        classes=task.classes,
        support_size=task.support.size,
        steps=task.steps,
        losses=adapted.losses,
        example_weights=adapted.weights,
        size_bytes=adapted.state.size_bytes,
    )


def remake_task(model: ServedModel, recipe: Recipe, classes: tuple[str, ...]) -> AdaptTask:
    """The task that an Adapt request with the examples of a recipe would be for a model.

    Args:
        model: that shall adapt.
        recipe: of an adaptation that another version made.
        classes: its labels by class index; empty for regression.

    Raises:
        UnfitError: the model does not take such examples, or so many classes.
    """
    check_fits(model, recipe, classes)
    if classes and (wrong := model.description.wrong_ways(len(classes))) is not None:
        raise UnfitError(f"the adaptation {wrong}")
    return task_of(model, recipe.examples(classes), recipe.steps if recipe.steps_chosen else None)


def check_fits(model: ServedModel, recipe: Recipe, classes: tuple[str, ...]) -> None:
    """Refuse a recipe whose examples are none of a model's. Raises UnfitError."""
    traits = model.description.traits
    if recipe.input_format != model.description.input_format:
        raise UnfitError("the version takes other inputs")
    if (traits.task_kind == "classification") != bool(classes):
        raise UnfitError("the version answers another kind of question")
    if not classes and recipe.y.shape[1:] != (traits.target_size,):
        raise UnfitError(f"the version takes {traits.target_size} targets an example")


def task_of(model: ServedModel, examples: LabelledExamples, steps: int | None) -> AdaptTask:
    """The task that an Adapt request with some examples would be.

    Args:
        model: that shall adapt.
        examples: of a kind that the model takes.
        steps: that their owner chose, or as many of them as the model takes; None for its usual number.
    """
    traits = model.description.traits
    support, classes = examples.support(in_order=traits.order_matters)
    taken = traits.default_steps if steps is None else min(steps, traits.max_steps)
    return AdaptTask(model, support, classes, taken, steps is not None, examples.ids)
