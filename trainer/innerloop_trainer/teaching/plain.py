"""Nothing of the teachers is learned."""

from typing import ClassVar

from innerloop_learner.tasks import Params
from innerloop_trainer.teaching.teachers import Teachers
from innerloop_trainer.teaching.teaching import Teaching, teachings


@teachings.register("plain")
class Plain(Teaching):
    """Teachers stay as they are (Hinton, Vinyals and Dean 2015, section 2)."""

    learns: ClassVar[bool] = False

    def init(self, teachers: Teachers, temperature: float) -> Params:
        """See Teaching.init."""
        del teachers, temperature
        return {}
