"""The time that a call spent in each phase on the server."""

from typing import NamedTuple

from google.protobuf.duration_pb2 import Duration

from innerloop.v1 import adaptation_pb2 as pb


class Timings(NamedTuple):
    """Seconds spent on the server.

    Attributes:
        queue: waiting for the device.
        adapt, predict: computing.
        encode: decoding the request and encoding the response.
        encoder: computing features by the frozen encoder in front of the model; zero for models without one.
    """

    queue: float
    adapt: float
    predict: float
    encode: float
    encoder: float

    @classmethod
    def from_message(cls, message: pb.Timings) -> "Timings":
        """Read the wire form."""
        return cls(*(_seconds(getattr(message, phase)) for phase in cls._fields))


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos * 1e-9
