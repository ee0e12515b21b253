"""Model-agnostic meta-learning."""

from dataclasses import replace
from typing import ClassVar

from innerloop_learner.gradient_learner import GradientLearner
from innerloop_learner.learner import MethodInfo, TrainingDefaults, methods
from innerloop_learner.update_rules import update_rules


@methods.register("maml")
class MAML(GradientLearner):
    """Learns weights from which a few gradient steps suffice (Finn, Abbeel and Levine 2017, algorithm 2).

    With support loss L_S and query loss L_Q of a task, rate a and initial weights w:

        w_0 = w,   w_{k+1} = w_k - a * grad L_S(w_k),   w* = argmin_w  E_task L_Q(w_K)

    The outer gradient goes through the inner gradients (second order).

    Settings (`spec.settings`):
        steps: inner steps K in training, and at serving unless a request names another number.
        max_steps: most steps a request may ask for.
        update_rule: registered name.
        rate: a, for the "sgd" rule.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        name="maml",
        family="initialisation",
        paper="Finn, Abbeel, Levine: Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks. ICML 2017",
        gradients_at_serving=True,
        order_matters=False,
        ways_can_change="fewer",
        tasks=("classification", "regression"),
        training=TrainingDefaults(),
    )

    def _configure(self, steps: int = 5, max_steps: int = 20, update_rule: str = "sgd", rate: float = 0.1) -> None:
        self._take_steps(steps, max_steps)
        self.rule = update_rules[update_rule](rate=rate)


@methods.register("fomaml")
class FirstOrderMAML(MAML):
    """MAML with inner gradients taken as constants (Finn et al. 2017, section 5.2): cheaper, a little less accurate."""

    info = replace(MAML.info, name="fomaml")
    order = 1
