"""The base class of methods whose inner loop follows a learned optimizer."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from innerloop_learner.gradient_learner import GradientLearner
from innerloop_learner.settings import StepSettings, setting
from innerloop_learner.update_rules import update_rules


@dataclass(frozen=True)
class LearnedOptimizerSettings(StepSettings):
    """Settings of learned optimizers."""

    rate: float = setting(0.1, "size of a step, as training begins: the scale of outputs, or where input gates start")
    hidden: int = setting(20, "units of each layer of the optimizer", least=1)
    adapts: Literal["all", "head"] = setting("all", "which weights the inner loop changes")


class LearnedOptimizer(GradientLearner):
    """Adapts by an update rule that is a recurrent network with meta-learned parameters.

    The outer gradient takes gradients of the support loss as constants, which saves the memory of second derivatives.
    """

    settings_class = LearnedOptimizerSettings
    settings: LearnedOptimizerSettings
    rule_name: ClassVar[str]
    """Registered name of the update rule."""

    order = 1

    def _configure(self) -> None:
        self.rule = update_rules[self.rule_name](rate=self.settings.rate, hidden=self.settings.hidden)
        self.adapts_body = self.settings.adapts == "all"
