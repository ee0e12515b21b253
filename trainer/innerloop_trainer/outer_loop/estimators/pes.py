"""Persistent evolution strategies."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from innerloop_learner.inner_loop import RULE, spread, take_step
from innerloop_learner.losses import task_loss
from innerloop_learner.objectives import Objective, Stage
from innerloop_learner.objectives.every_step import EveryStep
from innerloop_learner.objectives.objective import averaged, refitted
from innerloop_learner.population import evaluate_population
from innerloop_learner.settings import setting
from innerloop_learner.state import WEIGHTS, prefixed, section
from innerloop_learner.tasks import Episodes, Params, Query, Support
from innerloop_trainer.outer_loop.estimators.es import PopulationSettings, mirrored, perturbations
from innerloop_trainer.outer_loop.estimators.estimator import Estimate, Estimator, estimators

MEMBER, STATE, TOTAL, TASKS = "member.", "state.", "total.", "tasks."
"""Prefixes of a copy's parameters and state, of sums of perturbations, and of the tasks that are carried."""

TAKEN, LOSS, OUTPUTS = "taken", "loss", "outputs"
"""Names of the number of steps taken, of a copy's loss, and of its answers."""


@dataclass(frozen=True)
class PersistentSettings(PopulationSettings):
    """Settings of evolution strategies, and the length of a partial unroll."""

    population: int = 32
    partial_unroll: int = setting(10, "inner steps per outer step; the unroll goes on in the next outer step", least=1)


class Partial(NamedTuple):
    """The result of a partial unroll.

    Attributes:
        gradients: estimate of the gradient of the mean loss of the partial unroll.
        results: what `advance` returned for each copy, [P, ...] each.
        totals: sums of each pair's perturbations since the unroll began, [P / 2, ...] each.
    """

    gradients: Params
    results: Params
    totals: Params


@estimators.register("pes")
class PersistentEvolution(Estimator):
    """Evolution strategies for unrolls of very many steps (Vicol et al. 2021, arXiv:2112.13835).

    An outer step takes only a few inner steps of each of P copies, which keep their own weights in between. With the
    perturbation e_i^t of pair i in outer step t of an unroll, and the losses l of its copies in that step alone:

        x_i^t = e_i^1 + ... + e_i^t,      g^t = 1 / (P s) sum_i x_i^t (l_i^t - l_{-i}^t)      (equation 8, antithetic)

    Earlier perturbations made the states what they are, so the sum carries what a truncated gradient leaves out: over
    an unroll, g is the gradient of the losses of all steps, without bias but for the smoothing by s.

    The loss is that after each inner step. All copies unroll the tasks that were there when the unroll began, and get
    new ones when the learner's `steps` are taken. A pair of which a loss is not finite counts for nothing.

    Raises:
        ValueError: the learner is not trained by the loss after every step, each of which weighs the same.
    """

    asks_objective = False
    settings_class = PersistentSettings
    settings: PersistentSettings
    in_parts = False  # the weights of every task are carried on, which belong to no process
    objective: EveryStep

    def __init__(self, objective: Objective, settings: Any) -> None:
        super().__init__(objective, settings)
        learner = objective.learner
        if not isinstance(objective, EveryStep) or objective.settings.step_weights:
            raise ValueError(
                f"{learner.info.name} is not trained by the loss after every step, each of equal weight, which long "
                f"unrolls need; train lstm-optimizer, without step_weights"
            )
        self._learner = objective.learner

    def start(self, params: Params) -> Params:
        """See Estimator.start: no step is taken yet."""
        return {TAKEN: torch.zeros((), dtype=torch.int64, device=next(iter(params.values())).device)}

    @torch.no_grad()
    def estimate(self, params: Params, carried: Params, episodes: Episodes, stage: Stage) -> Estimate:
        """See Estimator.estimate; loss and outputs are those of the copies and of one copy at the end of the call."""
        learner, settings = self._learner, self.settings
        learned = {name: value for name, value in params.items() if name not in learner.buffers()}
        noise = perturbations(learned, settings.population // 2, stage)
        if not int(carried[TAKEN]):
            carried = self._begun(params, noise, episodes, stage)
        tasks, taken = _unpacked(section(carried, TASKS)), int(carried[TAKEN])
        steps = min(settings.partial_unroll, learner.default_steps - taken)

        def advance(member: Params, state: Params) -> Params:
            return self._advance({**params, **member}, state, tasks, taken, steps)

        partial = persistent_step(
            advance, learned, section(carried, STATE), section(carried, TOTAL), noise, settings.sigma
        )
        ended = taken + steps == learner.default_steps
        kept = {
            **prefixed(STATE, section(partial.results, STATE)),
            **prefixed(TOTAL, partial.totals),
            **prefixed(TASKS, section(carried, TASKS)),
            TAKEN: carried[TAKEN] + steps,
        }
        return Estimate(
            partial.gradients,
            averaged(params, refitted(learner, params, tasks.support)),
            partial.results[LOSS].mean(),
            partial.results[OUTPUTS][0],
            self.start(params) if ended else kept,
            answered=tasks,
        )

    def _begun(self, params: Params, noise: Params, episodes: Episodes, stage: Stage) -> Params:
        """What is carried to the first steps on new tasks: each copy starts from its own initial weights."""
        learner, pairs = self._learner, len(next(iter(noise.values())))
        given = {**params, **self.objective.drawn(params, stage)}
        copies = {name: value.expand(2 * pairs, *value.shape) for name, value in given.items()}
        learned = {name: value for name, value in given.items() if name in noise}
        drawn = (
            {} if self.objective.settings.initialisation == "random" else mirrored(learned, noise, self.settings.sigma)
        )
        tasks = episodes.support.tasks

        def begin(member: Params) -> Params:
            weights = spread(learner.adapted(member), tasks)
            return {**prefixed(WEIGHTS, weights), **prefixed(RULE, learner.rule.start(member, weights))}

        states = evaluate_population(begin, {**copies, **drawn})
        zeros = {name: torch.zeros_like(value) for name, value in noise.items()}
        return {
            **prefixed(STATE, states),
            **prefixed(TOTAL, zeros),
            **prefixed(TASKS, _packed(episodes)),
            **self.start(params),
        }

    def _advance(self, params: Params, state: Params, tasks: Episodes, taken: int, steps: int) -> Params:
        """One copy's state, mean loss and last answers after some more steps."""
        learner, support, query = self._learner, tasks.support, tasks.query
        params = {**params, **refitted(learner, params, support)}
        frozen = learner.frozen_features(params, support)
        loss, kind = learner.support_loss(params, support, frozen), learner.spec.task_kind
        kept, memory = section(state, WEIGHTS), section(state, RULE)
        # What is restored from a file comes in another order, which rules that see weights as coordinates rely on.
        weights = {name: kept[name] for name in learner.adapted(params)}
        losses = []
        for index in range(taken, taken + steps):
            weights, _, memory = take_step(loss, weights, learner.rule, params, memory, index, 1)
            outputs = learner.predict(params, learner.state_after(params, weights, support, frozen, index + 1), query)
            losses.append(task_loss(kind, outputs, tasks.targets, query.mask).mean())
        after = prefixed(STATE, {**prefixed(WEIGHTS, weights), **prefixed(RULE, memory)})
        return {LOSS: torch.stack(losses).mean(), OUTPUTS: outputs, **after}


def persistent_step(
    advance: Callable[[Params, Params], Params],
    params: Params,
    states: Params,
    totals: Params,
    noise: Params,
    sigma: float,
) -> Partial:
    """One partial unroll of a population, and the gradient estimated from it: the equation of `PersistentEvolution`.

    Args:
        advance: function of one copy's parameters and state; it returns its loss as "loss", its new state under names
            that begin with "state.", and whatever else is wanted of it.
        params: parameters without perturbation.
        states: state of each copy, [P, ...] each; those of one half of the copies, then those of their mirror images.
        totals: sums of perturbations so far, [P / 2, ...] each; zeros at the start of an unroll.
        noise: perturbations of this partial unroll, standard normal, [P / 2, ...] each.
        sigma: standard deviation of perturbations.
    """
    population = {**prefixed(MEMBER, mirrored(params, noise, sigma)), **prefixed(STATE, states)}
    results = evaluate_population(lambda copy: advance(section(copy, MEMBER), section(copy, STATE)), population)
    one, other = results[LOSS].chunk(2)
    differences = (one - other).nan_to_num(0, 0, 0)
    totals = {name: value + noise[name] for name, value in totals.items()}
    gradients = {
        name: torch.tensordot(differences.to(value), value, 1) / (2 * len(value) * sigma)
        for name, value in totals.items()
    }
    return Partial(gradients, results, totals)


def _packed(episodes: Episodes) -> Params:
    """Tasks as named tensors."""
    support, query = episodes.support, episodes.query
    return {
        "support.x": support.x,
        "support.y": support.y,
        "support.mask": support.mask,
        "support.ways": support.ways,
        "support.max_ways": torch.tensor(support.max_ways),
        "query.x": query.x,
        "query.mask": query.mask,
        "targets": episodes.targets,
    }


def _unpacked(tensors: Params) -> Episodes:
    """Reverse `_packed`."""
    support = section(tensors, "support.")
    max_ways = int(support.pop("max_ways"))
    return Episodes(Support(**support, max_ways=max_ways), Query(**section(tensors, "query.")), tensors["targets"])
