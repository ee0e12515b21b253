"""Model-agnostic meta-learning."""

from dataclasses import dataclass, replace
from typing import ClassVar

from innerloop_learner.gradient_learner import GradientLearner
from innerloop_learner.learner import MethodInfo, methods
from innerloop_learner.settings import StepSettings, setting
from innerloop_learner.update_rules import update_rules


@dataclass(frozen=True)
class MAMLSettings(StepSettings):
    """Settings of MAML and of its descendants."""

    update_rule: str = setting("sgd", "registered name of the update rule")
    rate: float = setting(0.1, "inner learning rate; where the update rule learns rates, what they start with")


@methods.register("maml")
class MAML(GradientLearner):
    """Learns weights from which a few gradient steps suffice (Finn, Abbeel and Levine 2017, algorithm 2).

    With support loss L_S and query loss L_Q of a task, rate a and initial weights w:

        w_0 = w,   w_{k+1} = w_k - a * grad L_S(w_k),   w* = argmin_w  E_task L_Q(w_K)

    The outer gradient goes through the inner gradients (second order).
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        name="maml",
        family="initialisation",
        paper="Finn, Abbeel, Levine: Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks. ICML 2017",
        gradients_at_serving=True,
        order_matters=False,
        ways_can_change="fewer",
        tasks=("classification", "regression"),
    )
    settings_class = MAMLSettings
    settings: MAMLSettings
    weighs_examples = True
    takes_noise = True
    augments_support = True

    def _configure(self) -> None:
        self.rule = update_rules[self.settings.update_rule](rate=self.settings.rate)


@methods.register("fomaml")
class FirstOrderMAML(MAML):
    """MAML with inner gradients taken as constants (Finn et al. 2017, section 5.2).

    It is cheaper and a little less accurate.
    """

    info = replace(MAML.info, name="fomaml")
    order = 1
    weighs_examples = False  # what weights do to a step shows in second derivatives only
    takes_noise = False
    augments_support = False  # so does what strengths do
