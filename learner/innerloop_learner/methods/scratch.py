"""No meta-learning at all."""

from dataclasses import dataclass, replace

from innerloop_learner.learner import methods
from innerloop_learner.methods.maml import MAML, MAMLSettings


@dataclass(frozen=True)
class ScratchSettings(MAMLSettings):
    """Settings of MAML, with more steps."""

    steps: int = 50
    max_steps: int = 200


@methods.register("scratch")
class Scratch(MAML):
    """Random weights, fine-tuned: what all others must beat.

    w_{k+1} = w_k - a * grad L_S(w_k),   w_0 drawn once and never learned
    """

    info = replace(
        MAML.info,
        name="scratch",
        family="baseline",
        paper="Chen, Liu, Kira, Wang, Huang: A Closer Look at Few-shot Classification. ICLR 2019",
    )
    settings_class = ScratchSettings
    settings: ScratchSettings
    weighs_examples = False  # nothing is trained
    takes_noise = False
    augments_support = False
