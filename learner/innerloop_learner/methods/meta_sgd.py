"""Meta-SGD."""

from dataclasses import dataclass, replace

from innerloop_learner.learner import methods
from innerloop_learner.methods.maml import MAML, MAMLSettings


@dataclass(frozen=True)
class MetaSGDSettings(MAMLSettings):
    """Settings of MAML, with one step and learned rates."""

    steps: int = 1
    update_rule: str = "learned_rates"


@methods.register("meta-sgd")
class MetaSGD(MAML):
    """MAML with a learned rate for every weight (Li, Zhou, Chen and Li 2017, algorithm 1).

    Rates may become negative, so directions are learned too.

    With initial weights w and rates a of the same shape, both meta-learned:

        w_{k+1} = w_k - a * grad L_S(w_k) (elementwise),   (w*, a*) = argmin  E_task L_Q(w_K)

    The setting `rate` is what every entry of a starts with.
    """

    info = replace(
        MAML.info,
        name="meta-sgd",
        family="optimizer",
        paper="Li, Zhou, Chen, Li: Meta-SGD: Learning to Learn Quickly for Few-Shot Learning. arXiv:1707.09835",
    )
    settings_class = MetaSGDSettings
    settings: MetaSGDSettings
