"""Encoders of texts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from innerloop_learner.encoders.encoder import FrozenEncoder, filled_up
from innerloop_learner.encoders.errors import EncoderError
from innerloop_learner.encoders.packed_texts import pack_texts, unpack_texts
from innerloop_learner.encoders.session import Array, Session
from innerloop_learner.encoders.spec import TOKENIZER, EncoderSpec

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"
DTYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
PADDING = ("[PAD]", "<pad>")
TOKENIZED_AT_ONCE = 1024


class TextEncoder(FrozenEncoder):
    """A graph that takes token ids [N, L], and a tokenizer.

        features = pool(graph(tokens))

    Texts are cut at `max_tokens`. Shorter ones are padded and masked; where the graph has no mask, only texts of equal
    length are computed together. Tokens are averaged over the mask.

    Raises:
        EncoderError: the tokenizer can't be read, or the graph takes something else.
    """

    def __init__(self, spec: EncoderSpec, session: Session, files: Mapping[str, bytes]) -> None:
        super().__init__(spec, session, files)
        shape = token_input(session)
        self._fixed_batch, self._fixed_length = shape
        self._tokenizer = read_tokenizer(files[TOKENIZER])
        self._padding = _padding_id(self._tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(spec.max_tokens)

    def encode(self, raw: Array) -> NDArray[np.float32]:
        """See FrozenEncoder.encode."""
        features = np.empty((len(raw), self.spec.features), np.float32)
        for start in range(0, len(raw), TOKENIZED_AT_ONCE):
            tokens = self._tokenizer.encode_batch(unpack_texts(raw[start : start + TOKENIZED_AT_ONCE]))
            for rows in self._batches([len(each.ids) for each in tokens]):
                features[start + rows] = self._encode([tokens[row] for row in rows])
        return features

    def _batches(self, lengths: Sequence[int]) -> Iterator[NDArray[np.int64]]:
        """Rows of texts to compute together: of similar length, and of equal length where the graph has no mask."""
        order = np.argsort(lengths, kind="stable")
        size, parts = self._fixed_batch or self._session.batch, [order]
        if MASK not in self._session.inputs:
            parts = np.split(order, np.flatnonzero(np.diff(np.asarray(lengths)[order])) + 1)
        for part in parts:
            yield from (part[start : start + size] for start in range(0, len(part), size))

    def output_shape(self) -> tuple[int, ...]:
        """See FrozenEncoder.output_shape."""
        return self._run(self._tokenizer.encode_batch(unpack_texts(self.probe()[1:])))[0].shape

    def probe(self) -> Array:
        """See FrozenEncoder.probe; a short text, and one of the greatest length."""
        return pack_texts(["one", "two words " * self.spec.max_tokens])

    def _encode(self, tokens: "Sequence[Encoding]") -> NDArray[np.float32]:
        return self._finish(self._pooled(*self._run(tokens)))

    def _run(self, tokens: "Sequence[Encoding]") -> tuple[Array, Array]:
        """The graph's output, and the mask of real tokens [N, L]."""
        length = self._fixed_length or max(1, *(len(each.ids) for each in tokens))
        given = {
            IDS: _table([each.ids for each in tokens], length, self._padding),
            MASK: _table([each.attention_mask for each in tokens], length, 0),
            TYPES: _table([each.type_ids for each in tokens], length, 0),
        }
        inputs = {
            name: filled_up(given[name].astype(DTYPES[kind]), self._fixed_batch)
            for name, (_, kind) in self._session.inputs.items()
        }
        return self._session.run(self.spec.output, inputs)[: len(tokens)], given[MASK]

    def _pooled(self, values: Array, mask: Array) -> Array:
        """One vector per text, from vectors of its tokens [N, L, H] or from a vector [N, F]."""
        if self.spec.pooling == "none":
            return values
        if self.spec.pooling == "first":
            return values[:, 0]
        weights: Array = mask[..., None].astype(np.float32)
        mean: Array = (values * weights).sum(1) / np.maximum(weights.sum(1), 1)
        if self.spec.pooling == "mean":
            return mean
        present = np.where(mask[..., None] > 0, values, -np.inf).max(1)
        most: Array = np.where(mask.any(1, keepdims=True), present, 0)
        return np.concatenate([mean, most], axis=1)


def token_input(session: Session) -> tuple[int | None, int | None]:
    """The batch size and the length in tokens that a graph for texts is fixed to; None where it takes any.

    Raises:
        EncoderError: the graph does not take token ids.
    """
    described = ", ".join(f"{name} {list(shape)} {kind}" for name, (shape, kind) in session.inputs.items())
    usable = all(
        name in (IDS, MASK, TYPES) and len(shape) == 2 and kind in DTYPES
        for name, (shape, kind) in session.inputs.items()
    )
    if IDS not in session.inputs or not usable:
        raise EncoderError(
            f"a text encoder takes {IDS}, and perhaps {MASK} and {TYPES}, integers [N, tokens]; this takes {described}"
        )
    (batch, length), _ = session.inputs[IDS]
    if length is not None and MASK not in session.inputs:
        raise EncoderError(f"an encoder of {length} tokens, no more and no less, needs an input {MASK}")
    return batch, length


def read_tokenizer(content: bytes) -> "Tokenizer":
    """Read a tokenizer from the content of its file.

    Raises:
        EncoderError: the content is not a tokenizer's, or the library `tokenizers` is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise EncoderError('text encoders need tokenizers; pip install "innerloop[encoder]"') from error
    try:
        return Tokenizer.from_str(content.decode())
    except Exception as error:  # the library raises bare exceptions
        raise EncoderError("the tokenizer can't be read; give a tokenizer.json", error) from error


def _padding_id(tokenizer: "Tokenizer") -> int:
    """The token that pads shorter texts. It matters though it is masked, since some graphs count positions by it."""
    if tokenizer.padding:
        return int(tokenizer.padding["pad_id"])
    return next((found for name in PADDING if (found := tokenizer.token_to_id(name)) is not None), 0)


def _table(rows: Sequence[Sequence[int]], length: int, padding: int) -> Array:
    table = np.full((len(rows), length), padding, np.int64)
    for target, row in zip(table, rows, strict=True):
        target[: len(row)] = row
    return table
