"""Meta-SGD."""

from dataclasses import replace

from innerloop_learner.learner import methods
from innerloop_learner.methods.maml import MAML


@methods.register("meta-sgd")
class MetaSGD(MAML):
    """MAML that also learns a rate, direction included, for every weight (Li, Zhou, Chen and Li 2017, algorithm 1).

    With initial weights w and rates a of the same shape, both meta-learned:

        w_{k+1} = w_k - a * grad L_S(w_k) (elementwise),   (w*, a*) = argmin  E_task L_Q(w_K)

    Settings are those of MAML; `rate` is what every entry of a starts with.
    """

    info = replace(
        MAML.info,
        name="meta-sgd",
        paper="Li, Zhou, Chen, Li: Meta-SGD: Learning to Learn Quickly for Few-Shot Learning. arXiv:1707.09835",
    )

    def _configure(
        self, steps: int = 1, max_steps: int = 20, update_rule: str = "learned_rates", rate: float = 0.1
    ) -> None:
        super()._configure(steps, max_steps, update_rule, rate)
