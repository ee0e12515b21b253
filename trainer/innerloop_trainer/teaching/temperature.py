"""The temperature of the teachers is learned."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from innerloop_learner.tasks import Params
from innerloop_trainer.teaching.teachers import Teachers
from innerloop_trainer.teaching.teaching import Teaching, teachings

LOG_TEMPERATURE = "log_temperature"


@teachings.register("temperature")
class Temperature(Teaching):
    """The temperature is learned (after Zhou, Xu and McAuley 2022).

    One number for all teachers and the student says how soft the answers are that they are compared by. Its logarithm
    is what is learned, so it stays positive.
    """

    rate: ClassVar[float] = 3.0  # validated best of 3 and 30 on Omniglot; a single number may move fast

    def init(self, teachers: Teachers, temperature: float) -> Params:
        """See Teaching.init: the logarithm of the temperature, a scalar."""
        del teachers
        return {LOG_TEMPERATURE: torch.tensor(math.log(temperature))}

    def temperature(self, learned: Params, given: Tensor) -> Tensor:
        """See Teaching.temperature."""
        del given
        return learned[LOG_TEMPERATURE].exp()
