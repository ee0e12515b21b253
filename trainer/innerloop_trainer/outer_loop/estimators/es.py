"""Evolution strategies."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from innerloop_learner.objectives import Objective, Stage
from innerloop_learner.parts import current_part
from innerloop_learner.population import evaluate_population
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Episodes, Params
from innerloop_trainer.outer_loop.estimators.estimator import Estimate, Estimator, estimators


@dataclass(frozen=True)
class PopulationSettings:
    """Settings of estimators that compare perturbed copies of the meta-parameters.

    Raises:
        ValueError: an odd number of copies.
    """

    sigma: float = setting(0.02, "standard deviation of perturbations of each meta-parameter", least=1e-6)
    population: int = setting(128, "perturbed copies per outer step, half of them mirror images of the others", least=2)

    def __post_init__(self) -> None:
        if self.population % 2:
            raise ValueError(f"population must be even, since copies come in pairs, not {self.population}")


@estimators.register("es")
class EvolutionStrategies(Estimator):
    """Evolution strategies: compares perturbed copies (Salimans et al. 2017; for MAML Song et al. 2020).

    With an outer loss L of meta-parameters w, on one batch of episodes for all copies, and half a population of P/2
    perturbations e_i ~ N(0, I):

        l_i = L(w + s e_i),   l_{-i} = L(w - s e_i),   g = 1 / (P s) sum_i (r(l_i) - r(l_{-i})) e_i

    The loss is only evaluated, never differentiated: no graph goes through adapting, and losses without a useful
    gradient do. r replaces the P losses by their ranks, spread evenly from -1/2 to 1/2 (Salimans et al., section 2.1):
    where an inner loop diverges, a copy is merely the worst of all, however large its loss is, even infinite or NaN.
    The optimizer, Adam, makes up for the size of the gradient.
    """

    settings_class = PopulationSettings
    settings: PopulationSettings

    def __init__(self, objective: Objective, settings: Any) -> None:
        super().__init__(objective, settings)
        # Copies that are evaluated side by side can't wait for other processes, as norms that pool moments must.
        self.in_parts = not any(norm.buffers() for norm in objective.learner.backbone.norms)

    @torch.no_grad()
    def estimate(self, params: Params, carried: Params, episodes: Episodes, stage: Stage) -> Estimate:
        """See Estimator.estimate; buffers, loss and outputs are those of the parameters without perturbation."""
        del carried
        settings, constant = self.settings, self.objective.learner.buffers() | self.objective.strengths()
        learned = {name: value for name, value in params.items() if name not in constant}
        noise = perturbations(learned, settings.population // 2, stage)

        def loss(member: Params) -> Params:
            return {"loss": self.objective({**params, **member}, episodes, stage).loss}

        losses = evaluate_population(loss, mirrored(learned, noise, settings.sigma))["loss"]
        one, other = centred_ranks(current_part().mean(losses)).chunk(2)
        gradients = {
            name: torch.tensordot((one - other).to(value), value, 1) / (settings.population * settings.sigma)
            for name, value in noise.items()
        }
        outcome = self.objective(params, episodes, stage)
        return Estimate(gradients, outcome.buffers, outcome.loss, outcome.outputs)


def perturbations(params: Params, pairs: int, stage: Stage) -> Params:
    """Standard normal numbers [pairs, ...] for each parameter, the same ones on every device."""

    def make(stage: Stage) -> Params:
        generator = stage.generator()
        return {
            name: torch.randn(pairs, *value.shape, generator=generator).to(value.dtype)
            for name, value in params.items()
        }

    return stage.made(make, next(iter(params.values())).device)


def mirrored(params: Params, noise: Params, sigma: float) -> Params:
    """Parameters [2 * pairs, ...] with noise [pairs, ...] added, then with it subtracted."""
    return {
        name: torch.cat([value + sigma * noise[name], value - sigma * noise[name]]) for name, value in params.items()
    }


def centred_ranks(losses: Tensor) -> Tensor:
    """Ranks of losses [P], spread evenly from -1/2 for the smallest to 1/2; equal ones share the mean of their ranks.

    NaN counts as the largest.

    >>> centred_ranks(torch.tensor([3.0, 1.0, float("nan")]))
    tensor([ 0.0000, -0.5000,  0.5000])
    """
    known = losses.nan_to_num(torch.inf, torch.inf).unsqueeze(1)
    below, up_to = ((each(known, known.T)).sum(1) for each in (torch.gt, torch.ge))
    return (below + up_to - 1) / (2 * (len(losses) - 1)) - 0.5
