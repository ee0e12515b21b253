"""BOIL: body only inner loop."""

from dataclasses import replace

from innerloop_learner.learner import methods
from innerloop_learner.methods.maml import MAML


@methods.register("boil")
class BOIL(MAML):
    """MAML whose inner loop adapts the body only (Oh, Yoo, Kim and Yun 2021, section 3).

    It is the opposite of ANIL.

    With body weights b and head h, which the inner loop leaves as it was meta-learned:

        b_{k+1} = b_k - a * grad_b L_S(b_k, h),   (b*, h*) = argmin  E_task L_Q(b_K, h)

    The features must change to fit a task, which helps where tasks differ much.
    """

    info = replace(
        MAML.info,
        name="boil",
        paper="Oh, Yoo, Kim, Yun: BOIL: Towards Representation Change for Few-shot Learning. ICLR 2021",
    )
    adapts_head = False
