"""A learned optimizer."""

from dataclasses import replace

from innerloop_learner.learned_optimizer import LearnedOptimizer
from innerloop_learner.learner import methods
from innerloop_learner.methods.maml import MAML


@methods.register("lstm-optimizer")
class LSTMOptimizer(LearnedOptimizer):
    """A learned optimizer: an LSTM takes the inner steps (Andrychowicz et al. 2016, equations 2 and 3).

    With the update rule m of `update_rules.lstm`, its parameters p and state h:

        w_{t+1} = w_t + g_t,   [g_t, h_{t+1}] = m(grad L_S(w_t), h_t, p)

    Gradients of the learned-from loss are constants (figure 2). It is trained by the loss after every step.
    """

    info = replace(
        MAML.info,
        name="lstm-optimizer",
        family="optimizer",
        paper="Andrychowicz et al.: Learning to learn by gradient descent by gradient descent. NIPS 2016",
        objective="every_step",
    )
    rule_name = "lstm"
    retired_settings = frozenset({"step_weights", "truncate", "initialisation"})
