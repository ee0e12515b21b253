"""Encoders whose graph takes one array of numbers."""

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from innerloop_learner.encoders.encoder import FrozenEncoder, filled_up
from innerloop_learner.encoders.errors import EncoderError
from innerloop_learner.encoders.session import Array, Session
from innerloop_learner.encoders.spec import EncoderSpec


class ArrayEncoder(FrozenEncoder):
    """A graph with one input [N, *shape].

    features = pool(graph(prepare(raw)))
    """

    def __init__(self, spec: EncoderSpec, session: Session, files: Mapping[str, bytes]) -> None:
        super().__init__(spec, session, files)
        (self._input,) = session.inputs
        self._fixed_batch = session.inputs[self._input][0][0]

    @abstractmethod
    def _prepare(self, raw: Array) -> Array:
        """Inputs [N, *shape] as the graph takes them."""

    @abstractmethod
    def _refusal(self, shape: tuple[int, ...]) -> str:
        """The message that refuses inputs of another shape than the encoder's."""

    def encode(self, raw: Array) -> NDArray[np.float32]:
        """See FrozenEncoder.encode."""
        if raw.shape[1:] != self.spec.shape:
            raise EncoderError(self._refusal(raw.shape[1:]))
        size = self._fixed_batch or self._session.batch
        parts = [self._encode(raw[start : start + size]) for start in range(0, len(raw), size)]
        return np.concatenate([np.zeros((0, *self.spec.output_shape), np.float32), *parts])

    def output_shape(self) -> tuple[int, ...]:
        """See FrozenEncoder.output_shape."""
        return self._run(self.probe()[:1]).shape

    def _encode(self, raw: Array) -> NDArray[np.float32]:
        return self._finish(self._pooled(self._run(raw)))

    def _run(self, raw: Array) -> Array:
        given = {self._input: filled_up(self._prepare(raw), self._fixed_batch)}
        return self._session.run(self.spec.output, given)[: len(raw)]

    def _pooled(self, values: Array) -> Array:
        """The features of each example, from feature maps [N, C, H, W], several vectors [N, L, H] or one [N, F]."""
        if self.spec.pooling == "none":
            return values
        tokens = values.reshape(*values.shape[:2], -1).transpose(0, 2, 1) if values.ndim == 4 else values  # [N, L, H]
        if self.spec.pooling == "first":
            return tokens[:, 0]
        if self.spec.pooling == "thirds":
            return np.concatenate([part.mean(1) for part in np.array_split(tokens, 3, axis=1)], axis=1)
        mean: Array = tokens.mean(1)
        return mean if self.spec.pooling == "mean" else np.concatenate([mean, tokens.max(1)], axis=1)
