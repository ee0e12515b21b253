"""The time that a call spent in each phase on the server."""

from typing import NamedTuple

from google.protobuf.duration_pb2 import Duration

from innerloop.v1 import adaptation_pb2 as pb


class Timings(NamedTuple):
    """Seconds spent on the server: waiting for the device, adapting, predicting, decoding and encoding."""

    queue: float
    adapt: float
    predict: float
    encode: float

    @classmethod
    def from_message(cls, message: pb.Timings) -> "Timings":
        """Read the wire form."""
        return cls(
            _seconds(message.queue), _seconds(message.adapt), _seconds(message.predict), _seconds(message.encode)
        )


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos * 1e-9
