"""Encoders of audio."""

from collections.abc import Mapping

import numpy as np

from innerloop_learner.encoders.arrays import ArrayEncoder
from innerloop_learner.encoders.errors import EncoderError
from innerloop_learner.encoders.session import Array, Session
from innerloop_learner.encoders.spec import EncoderSpec

FLOAT = "tensor(float)"
PROBE_LEVEL = 0.1
"""Standard deviation of the noise that encoders are tried with: that of speech at a usual level."""


class AudioEncoder(ArrayEncoder):
    """A graph with one input, mono samples [N, samples], float32 of -1 to 1 at the rate of its spec.

        features = pool(graph(samples))

    Windows of a recording [N, windows, F] are pooled to one vector; feature maps [N, C, H, W], such as spectrograms,
    may also stay as they are.

    Raises:
        EncoderError: the graph takes something else.
    """

    def __init__(self, spec: EncoderSpec, session: Session, files: Mapping[str, bytes]) -> None:
        if not takes_audio(session):
            described = ", ".join(f"{name} {list(shape)} {kind}" for name, (shape, kind) in session.inputs.items())
            raise EncoderError(f"an encoder of audio takes float [N, samples], this takes {described}")
        super().__init__(spec, session, files)

    def probe(self) -> Array:
        """See FrozenEncoder.probe."""
        noise = PROBE_LEVEL * np.random.default_rng(0).standard_normal((2, *self.spec.shape))
        return np.clip(noise, -1, 1).astype(np.float32)

    def _refusal(self, shape: tuple[int, ...]) -> str:
        return (
            f"this encoder takes {self.spec.shape[0]} samples at {self.spec.rate} Hz, these are {list(shape)}; "
            "choose length and rate of the audio to match"
        )

    def _prepare(self, raw: Array) -> Array:
        return raw.astype(np.float32, copy=False)


def takes_audio(session: Session) -> bool:
    """Whether a graph takes one input of audio, float [N, samples]."""
    return [(len(shape), kind) for shape, kind in session.inputs.values()] == [(2, FLOAT)]
