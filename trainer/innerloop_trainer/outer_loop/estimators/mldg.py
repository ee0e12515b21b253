"""Meta-learning domain generalisation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from innerloop_learner.objectives import Objective, Stage
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Episodes, Params
from innerloop_trainer.outer_loop.estimators.backpropagation import Backpropagation, look_ahead
from innerloop_trainer.outer_loop.estimators.estimator import Estimate, estimators


@dataclass(frozen=True)
class MLDGSettings:
    """How domains are held out, and what they say."""

    held_out: float = setting(
        0.33, "share of the domains of an outer step that are held out, at least one", least=0.0, most=1.0
    )
    look_ahead: float = setting(0.01, "rate of the step after which the held-out domains are asked", least=0.0)
    held_out_weight: float = setting(
        1.0, "weight of the held-out domains' loss; at 0 they teach a transformation's strengths alone", least=0.0
    )
    strength_rate: float = setting(
        10.0, "learning rate of strengths, in learning rates of the other meta-parameters", least=0.0
    )


@estimators.register("mldg")
class MLDG(Backpropagation):
    """Seeks steps that help domains that are held out (Li, Yang, Song and Hospedales 2018, algorithm 1).

    In each outer step some of the domains of its tasks are held out, drawn at random. With the loss F of the tasks of
    the others, the loss G of those held out, the meta-parameters w and a small rate a:

        g = grad_w [ F(w) + b G(w - a grad F(w)) ]      (equation 3, with second derivatives)

    So w is drawn to where a step that lowers the loss on some domains lowers it on others, too.

    F is computed with what training does to features (`Transformed`), with strengths p, and G without it. The strengths
    are taught by the held-out domains alone:

        g_p = grad_p G(w - a grad_w F(w; p))

    With b = 0 these are learned feature-wise transformations (Tseng, Lee, Huang and Yang 2020, algorithm 1), in which w
    learns from F only.

    Raises:
        ValueError: the held-out domains would teach nothing, or the learner has discrete choices to learn.
    """

    settings_class = MLDGSettings
    settings: MLDGSettings
    least_domains = 2
    teachers = "none"
    in_parts = False  # which domains are held out is drawn for all tasks together, and held-out ones follow the others

    def __init__(self, objective: Objective, settings: Any) -> None:
        super().__init__(objective, settings)
        if not self.settings.held_out_weight and not objective.strengths():
            raise ValueError(
                "with held_out_weight=0 there is nothing that held-out domains could teach; raise it, or add "
                "--transform feature_wise"
            )

    def rates(self) -> Mapping[str, float]:
        """See Estimator.rates."""
        return dict.fromkeys(self.objective.strengths(), self.settings.strength_rate)

    def estimate(self, params: Params, carried: Params, episodes: Episodes, stage: Stage) -> Estimate:
        """See Estimator.estimate; loss and outputs are those of both parts."""
        del carried
        objective, weight = self.objective, self.settings.held_out_weight
        held_out = held_out_tasks(episodes, self.settings.held_out, stage)
        order = held_out.long().argsort(stable=True)
        buffers, strengths = objective.learner.buffers(), objective.strengths()
        learned = {name: value.detach().requires_grad_() for name, value in params.items() if name not in buffers}
        weights = {name: value for name, value in learned.items() if name not in strengths}
        with torch.enable_grad():
            inside = objective({**params, **learned}, episodes.of_tasks(~held_out), stage)
            ahead, slopes = look_ahead(inside.loss, weights, self.settings.look_ahead)
            outside = objective.plain({**params, **inside.buffers, **ahead}, episodes.of_tasks(held_out), stage)
        taught = learned if weight else {name: learned[name] for name in strengths}
        found = torch.autograd.grad(outside.loss, list(taught.values()), materialize_grads=True)
        gradients = {name: slope.detach() for name, slope in slopes.items()}
        for name, gradient in zip(taught, found, strict=True):
            gradients[name] = gradient if name in strengths else gradients[name] + weight * gradient
        return Estimate(
            {name: gradient.contiguous() for name, gradient in gradients.items()},
            outside.buffers,
            (inside.loss + weight * outside.loss).detach(),
            torch.cat([inside.outputs, outside.outputs]).detach(),
            answered=episodes.of_tasks(order),
        )


def held_out_tasks(episodes: Episodes, share: float, stage: Stage) -> Tensor:
    """The tasks [T] of some of the domains, true for those held out: a share of all, but neither none nor all.

    Raises:
        ValueError: the episodes are of less than two domains.
    """
    present = torch.tensor(sorted(set(() if episodes.domains is None else episodes.domains.tolist())))
    if episodes.domains is None or len(present) < MLDG.least_domains:
        raise ValueError("the estimator mldg needs episodes of two domains or more in each outer step")
    count = min(max(1, round(share * len(present))), len(present) - 1)
    drawn = torch.randperm(len(present), generator=stage.generator("domains"))[:count]
    return torch.isin(episodes.domains, present[drawn].to(episodes.domains.device))
