"""Meta-Learner LSTM."""

from dataclasses import replace
from typing import Literal

from innerloop_learner.gradient_learner import GradientLearner
from innerloop_learner.learner import TrainingDefaults, methods
from innerloop_learner.methods.maml import MAML
from innerloop_learner.update_rules import update_rules


@methods.register("meta-lstm")
class MetaLSTM(GradientLearner):
    """Learns an optimizer and an initialisation as one LSTM whose cell state is the weights (Ravi, Larochelle 2017).

        w_t = f_t * w_{t-1} - i_t * grad L_S(w_{t-1}),   outer loss  L_Q(w_K)

    The gates i and f are `update_rules.lstm_gates`; the initial cell state w_0 is learned; gradients are constants
    (section 3.3). Batch normalisation as in section 3.4: moments are collected from the support set of each task anew
    and normalise its queries, which is the norm "task".

    Settings (`spec.settings`):
        steps, max_steps: as MAML's.
        rate: that the input gates start with.
        hidden: units of the LSTM that the gates look at.
        adapts: "all" weights, or the "head" only.
    """

    info = replace(
        MAML.info,
        name="meta-lstm",
        family="optimizer",
        paper="Ravi, Larochelle: Optimization as a Model for Few-Shot Learning. ICLR 2017",
        training=TrainingDefaults(meta_batch=4, queries=3),
    )
    order = 1

    def _configure(
        self,
        steps: int = 5,
        max_steps: int = 20,
        rate: float = 0.1,
        hidden: int = 20,
        adapts: Literal["all", "head"] = "all",
    ) -> None:
        self._take_steps(steps, max_steps)
        self.rule = update_rules["lstm_gates"](rate=rate, hidden=hidden)
        self.adapts_body = adapts == "all"
