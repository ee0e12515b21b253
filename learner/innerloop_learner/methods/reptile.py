"""Reptile."""

from dataclasses import dataclass, replace

from innerloop_learner.learner import methods
from innerloop_learner.methods.maml import MAML, MAMLSettings


@dataclass(frozen=True)
class ReptileSettings(MAMLSettings):
    """Settings of MAML, with more steps at serving, each on the whole support set."""

    steps: int = 20
    max_steps: int = 100


@methods.register("reptile")
class Reptile(MAML):
    """Moves the initialisation towards trained weights (Nichol et al. 2018).

    It serves as MAML does.

    With weights U(w) that training on a task leads to from w, the initialisation moves along

        w - E_task U(w)      (algorithm 2; with one task per outer step algorithm 1)

    See `innerloop_trainer.outer_loop.estimators.reptile`. The paper's inner loop takes Adam without momentum, "adam".
    """

    info = replace(
        MAML.info,
        name="reptile",
        paper="Nichol, Achiam, Schulman: On First-Order Meta-Learning Algorithms. arXiv:1803.02999",
    )
    settings_class = ReptileSettings
    settings: ReptileSettings
    weighs_examples = False  # its estimator changes the weights that adapt, and nothing else
    takes_noise = False
    augments_support = False
    retired_settings = frozenset({"train_steps", "batch"})
