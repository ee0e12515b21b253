"""The heads of the teachers are learned."""

from typing import ClassVar

from innerloop_learner.tasks import Params
from innerloop_trainer.teaching.teachers import Teachers
from innerloop_trainer.teaching.teaching import Teaching, teachings


@teachings.register("head")
class Head(Teaching):
    """The head of each teacher is learned (Zhou, Xu and McAuley 2022).

    A head is what a learner has outside of its backbone, or the last block of the backbone of a metric method
    (`teachers.head_of`).
    """

    rate: ClassVar[float] = 0.003  # at ten times that, students validated worse on Omniglot than by heads that stay

    def init(self, teachers: Teachers, temperature: float) -> Params:
        """See Teaching.init."""
        del temperature
        return teachers.heads()

    def heads(self, learned: Params) -> Params:
        """See Teaching.heads."""
        return learned
