"""Meta-Learner LSTM."""

from dataclasses import replace

from innerloop_learner.learned_optimizer import LearnedOptimizer
from innerloop_learner.learner import methods
from innerloop_learner.methods.maml import MAML


@methods.register("meta-lstm")
class MetaLSTM(LearnedOptimizer):
    """An LSTM whose cell state is the weights it optimizes (Ravi and Larochelle 2017).

        w_t = f_t * w_{t-1} - i_t * grad L_S(w_{t-1}),   outer loss  L_Q(w_K)

    The gates i and f are `update_rules.lstm_gates`; the initial cell state w_0 is learned; gradients are constants
    (section 3.3). Batch normalisation as in section 3.4: moments are collected from the support set of each task anew
    and normalise its queries, which is the norm "task".
    """

    info = replace(
        MAML.info,
        name="meta-lstm",
        family="optimizer",
        paper="Ravi, Larochelle: Optimization as a Model for Few-Shot Learning. ICLR 2017",
    )
    rule_name = "lstm_gates"
