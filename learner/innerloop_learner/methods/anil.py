"""ANIL: almost no inner loop."""

from innerloop_learner.learner import MethodInfo, methods
from innerloop_learner.methods.maml import MAML


@methods.register("anil")
class ANIL(MAML):
    """MAML whose inner loop adapts the head only (Raghu, Raghu, Bengio and Vinyals 2020, section 4).

    With body f, its weights b, and head h:

        h_{k+1} = h_k - a * grad_h L_S(b, h_k),   (b*, h*) = argmin  E_task L_Q(b, h_K)

    The body is computed once per support set and the task state holds a head only, so adapting is cheap and states are
    small. With the head go the directions of the classes in feature space: they raise the logits of queries that look
    like one of them, and change no probability (`familiarity`).
    """

    info = MethodInfo(
        name="anil",
        family="initialisation",
        paper="Raghu, Raghu, Bengio, Vinyals: Rapid Learning or Feature Reuse? ICLR 2020",
        gradients_at_serving=True,
        order_matters=False,
        ways_can_change="fewer",
        tasks=("classification", "regression"),
    )
    adapts_body = False
    embeds_alone = True
