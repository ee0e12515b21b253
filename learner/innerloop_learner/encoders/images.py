"""Encoders of images."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from innerloop_learner.encoders.encoder import BATCH, FrozenEncoder, filled_up
from innerloop_learner.encoders.errors import EncoderError
from innerloop_learner.encoders.session import Array, Session
from innerloop_learner.encoders.spec import EncoderSpec

DTYPES: dict[str, type[np.generic]] = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}


class ImageEncoder(FrozenEncoder):
    """A graph with one input, images [N, C, H, W].

        features = pool(graph((pixels * scale - mean) / std))

    A graph that takes uint8 gets pixels as they are.

    Raises:
        EncoderError: the graph takes something else.
    """

    def __init__(self, spec: EncoderSpec, session: Session, files: Mapping[str, bytes]) -> None:
        super().__init__(spec, session, files)
        shape, self._dtype = image_input(session)
        self._fixed_batch = shape[0]
        (self._input,) = session.inputs

    def encode(self, raw: Array) -> NDArray[np.float32]:
        """See FrozenEncoder.encode."""
        if raw.shape[1:] != self.spec.shape:
            raise EncoderError(
                f"this encoder takes images of {_sizes(self.spec.shape)}, these are {_sizes(raw.shape[1:])}; "
                f"choose size and color of the images to match"
            )
        size = self._fixed_batch or BATCH
        parts = [self._encode(raw[start : start + size]) for start in range(0, len(raw), size)]
        return np.concatenate([np.zeros((0, self.spec.features), np.float32), *parts])

    def output_shape(self) -> tuple[int, ...]:
        """See FrozenEncoder.output_shape."""
        return self._run(self.probe()[:1]).shape

    def probe(self) -> Array:
        """See FrozenEncoder.probe."""
        return np.random.default_rng(0).integers(0, 256, (2, *self.spec.shape), dtype=np.uint8)

    def _encode(self, images: Array) -> NDArray[np.float32]:
        return self._finish(self._pooled(self._run(images)))

    def _run(self, images: Array) -> Array:
        given = {self._input: filled_up(self._normalised(images), self._fixed_batch)}
        return self._session.run(self.spec.output, given)[: len(images)]

    def _normalised(self, images: Array) -> Array:
        if self._dtype == np.uint8:
            return np.rint(images).astype(np.uint8)
        mean, std = (np.array(values, np.float32).reshape(-1, 1, 1) for values in (self.spec.mean, self.spec.std))
        return (images.astype(np.float32) * np.float32(self.spec.scale) - mean) / std

    def _pooled(self, values: Array) -> Array:
        """One vector per example, from feature maps [N, C, H, W], tokens [N, L, H] or vectors [N, F]."""
        if self.spec.pooling == "none":
            return values
        tokens = values.reshape(*values.shape[:2], -1).transpose(0, 2, 1) if values.ndim == 4 else values
        return tokens.mean(1) if self.spec.pooling == "mean" else tokens[:, 0]


def image_input(session: Session) -> tuple[tuple[int | None, ...], type[np.generic]]:
    """Shape and element type of the one input of a graph for images.

    Raises:
        EncoderError: the graph does not take one input of images.
    """
    described = ", ".join(f"{name} {list(shape)} {kind}" for name, (shape, kind) in session.inputs.items())
    if len(session.inputs) != 1:
        raise EncoderError(f"an image encoder has one input, this has {described}; text encoders need --tokenizer")
    ((shape, kind),) = session.inputs.values()
    if len(shape) != 4 or kind not in DTYPES:
        raise EncoderError(f"an image encoder takes float or uint8 [N, channels, height, width], this {described}")
    return shape, DTYPES[kind]


def _sizes(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
