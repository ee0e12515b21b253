"""The operations that a request consists of, and how long they took."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Operation(StrEnum):
    """The operation of a batch."""

    ADAPT = "adapt"
    EXTEND = "extend"
    LEAVE_OUT = "leave_out"
    PREDICT = "predict"


@dataclass(slots=True)
class Timings:
    """Seconds that one call spent waiting and computing.

    Attributes:
        queue: waiting.
        adapt: adapting, or learning more into an adaptation.
        predict: answering.
        encoder: of the encoder; zero for models without one.
    """

    queue: float = 0.0
    adapt: float = 0.0
    predict: float = 0.0
    encoder: float = 0.0

    def add(self, queue_seconds: float, encoder_seconds: float, seconds: Mapping[Operation, float]) -> None:
        """Add what one computation took: seconds that it waited, of the encoder, and of each operation."""
        self.queue += queue_seconds
        self.encoder += encoder_seconds
        self.adapt += seconds.get(Operation.ADAPT, 0.0) + seconds.get(Operation.EXTEND, 0.0)
        self.predict += seconds.get(Operation.PREDICT, 0.0)
