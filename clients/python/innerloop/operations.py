"""Operations of `Client` and `AsyncClient`, as steps that either carries out on its connection."""

from collections.abc import Hashable, Iterable
from contextlib import suppress
from datetime import timedelta

from numpy.typing import ArrayLike

from innerloop import calls
from innerloop.adaptation_core import AdaptationCore
from innerloop.adaptation_info import AdaptationInfo
from innerloop.connection_core import ConnectionCore
from innerloop.errors import InnerloopError, InvalidArgumentError
from innerloop.examples import Names
from innerloop.inputs import Inputs
from innerloop.predictions import Predictions
from innerloop.recipe import Recipe, make_recipe, read_answers
from innerloop.retry import Deadline
from innerloop.steps import Steps
from innerloop.wanted import Wanted


def adapt(
    connection: ConnectionCore,
    model: str,
    inputs: Inputs,
    labels: Iterable[Hashable] | None,
    targets: ArrayLike | None,
    rate: int | None,
    steps: int | None,
    time_to_live: float | timedelta | None,
    forget_examples: bool,
    diagnose: bool,
    timeout: float | None,
) -> Steps[tuple[AdaptationInfo, Recipe]]:
    """Adapt a model; what the server made, and how to make it again. Arguments as those of `Client.adapt`."""
    if not isinstance(diagnose, bool):
        raise InvalidArgumentError("diagnose must be True or False")
    deadline = connection.deadline(timeout)
    recipe = yield from _recipe(
        connection, model, inputs, labels, targets, rate, steps, time_to_live, forget_examples, deadline
    )
    return (yield from connection.call(calls.adapt(recipe, diagnose=diagnose), deadline)), recipe


def adapt_predict(
    connection: ConnectionCore,
    model: str,
    inputs: Inputs,
    labels: Iterable[Hashable] | None,
    query: Inputs,
    targets: ArrayLike | None,
    rate: int | None,
    steps: int | None,
    wanted: Wanted,
    timeout: float | None,
) -> Steps[Predictions]:
    """Adapt and answer queries. Arguments as those of `Client.adapt_predict`."""
    deadline = connection.deadline(timeout)
    recipe = yield from _recipe(connection, model, inputs, labels, targets, rate, steps, None, False, deadline)
    examples = yield from connection.read(model, query, Names("query"), deadline, rate)
    first, *others = yield from connection.split(model, examples, recipe.support.ByteSize, deadline)
    if not others:
        return (yield from connection.call(calls.adapt_predict(recipe, first, wanted=wanted), deadline))
    # The server keeps the adaptation for as long as the other parts take.
    remade = calls.adapt_again(recipe, first, wanted=wanted)
    info, answers = yield from connection.call(remade, deadline)
    adaptation = AdaptationCore(connection, info, recipe.labels, recipe)
    try:
        return Predictions.joined([answers, *(yield from adaptation.predict_parts(others, wanted, deadline, timeout))])
    finally:
        with suppress(InnerloopError):
            yield from adaptation.delete_steps(connection.next_deadline(deadline, timeout))


def _recipe(
    connection: ConnectionCore,
    model: str,
    inputs: Inputs,
    labels: Iterable[Hashable] | None,
    targets: ArrayLike | None,
    rate: int | None,
    steps: int | None,
    time_to_live: float | timedelta | None,
    forget_examples: bool,
    deadline: Deadline,
) -> Steps[Recipe]:
    answers = read_answers(labels, targets)
    examples = yield from connection.read(model, inputs, answers.names, deadline, rate)
    recipe = make_recipe(model, examples, answers, steps, time_to_live, forget_examples)
    connection.check_size(model, examples)
    return recipe
