"""MAML with implicit gradients."""

from dataclasses import dataclass, replace

from torch import Tensor

from innerloop_learner.backbones.backbone import Features
from innerloop_learner.inner_loop import Loss
from innerloop_learner.learner import methods
from innerloop_learner.loops import Index
from innerloop_learner.methods.maml import MAML, MAMLSettings
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Params, Support


@dataclass(frozen=True)
class IMAMLSettings(MAMLSettings):
    """Settings of MAML, with more steps and a pull towards the initialisation."""

    steps: int = 16
    max_steps: int = 100
    proximal: float = setting(1.0, "strength of the pull towards the initial weights in the inner loss", least=1e-6)


@methods.register("imaml")
class IMAML(MAML):
    """Pulls weights to the initialisation as they adapt (Rajeswaran et al. 2019).

    They end at the minimum of the support loss and that pull.

    With support loss L_S, strength l and initial weights w:

        w* = argmin_u  G(u; w),   G(u; w) = L_S(u) + l / 2 |u - w|^2      (equation 3)

    The minimum depends on w, but not on the way there. So the outer gradient needs no graph of the steps:
    see `innerloop_trainer.outer_loop.estimators.implicit`.
    """

    info = replace(
        MAML.info,
        name="imaml",
        paper="Rajeswaran, Finn, Kakade, Levine: Meta-Learning with Implicit Gradients. NeurIPS 2019",
    )
    settings_class = IMAMLSettings
    settings: IMAMLSettings
    weighs_examples = False  # implicit gradients are those of the initialisation
    takes_noise = False
    augments_support = False

    def support_loss(
        self,
        params: Params,
        support: Support,
        frozen: Features | None,
        examples: Tensor | None = None,
        learned: Tensor | None = None,
    ) -> Loss:
        """See GradientLearner.support_loss; G, whose second term is small where weights have hardly moved."""
        plain, initial = super().support_loss(params, support, frozen, examples, learned), self.adapted(params)

        def loss(step: Index, weights: Params, twice: bool) -> Tensor:
            distances = [(weight - initial[name]).square().flatten(1).sum(1) for name, weight in weights.items()]
            return plain(step, weights, twice) + self.settings.proximal / 2 * sum(distances)

        return loss
