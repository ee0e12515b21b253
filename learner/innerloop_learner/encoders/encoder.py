"""The interface of frozen encoders."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from innerloop_learner.encoders.errors import EncoderError
from innerloop_learner.encoders.session import Array, Session
from innerloop_learner.encoders.spec import EncoderSpec

TINY = 1e-12

LATER_FIELDS = frozenset({"rate", "feature_shape", "origin"})
"""Fields that EncoderSpec got after features had been cached by digests without them."""


class FrozenEncoder(ABC):
    """Turns the inputs that clients send into features; may be used from several threads at once.

    Args:
        spec: description of the encoder.
        session: the encoder's graph, opened in ONNX Runtime.
        files: content of the files that hold the encoder in a bundle, by file name.

    Raises:
        EncoderError: the graph has no output of the name in `spec`.
    """

    def __init__(self, spec: EncoderSpec, session: Session, files: Mapping[str, bytes]) -> None:
        if spec.output not in session.outputs:
            raise EncoderError(f"the encoder has no output {spec.output!r}; it has: {', '.join(session.outputs)}")
        self.spec = spec
        self.files = files
        self._session = session

    @property
    def digest(self) -> str:
        """SHA-256 of the files and settings that features depend on."""
        content = {name: hashlib.sha256(content).hexdigest() for name, content in self.files.items()}
        # Settings that say nothing are left out, so that digests stay the same when EncoderSpec gets further fields.
        settings = {name: value for name, value in asdict(self.spec).items() if value or name not in LATER_FIELDS}
        settings.pop("origin", None)
        return hashlib.sha256(json.dumps([settings, content], sort_keys=True).encode()).hexdigest()

    @abstractmethod
    def encode(self, raw: Array) -> NDArray[np.float32]:
        """Features [N, F], or maps [N, C, H, W] where the spec says so, of raw inputs.

        Raw inputs are packed texts [N, L] uint8, images [N, C, H, W] uint8 or float32, or audio [N, samples] float32.

        An example's features do not depend on the others, beyond rounding.

        Raises:
            EncoderError: the encoder can't take these inputs.
        """

    @abstractmethod
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the graph's output for one example, before pooling."""

    @abstractmethod
    def probe(self) -> Array:
        """Two raw inputs to try the encoder with."""

    def _finish(self, values: Array) -> NDArray[np.float32]:
        """Make the features that the spec asks for of each example's values [N, ...], after pooling."""
        expected = self.spec.output_shape
        if values.shape[1:] != expected:
            raise EncoderError(f"the encoder gives {list(values.shape[1:])} for an example, not {list(expected)}")
        if self.spec.normalise:
            lengths = np.linalg.norm(values.reshape(len(values), -1), axis=1)
            values = values / np.maximum(lengths, TINY).reshape(-1, *[1] * len(expected))
        return np.asarray(values, np.float32)


def filled_up(array: Array, size: int | None) -> Array:
    """An array [n, ...] whose first row is repeated behind it up to `size` rows, for graphs of a fixed batch size."""
    missing = 0 if size is None else size - len(array)
    return np.concatenate([array, np.repeat(array[:1], missing, axis=0)]) if missing > 0 else array
