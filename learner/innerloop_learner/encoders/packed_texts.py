"""Texts as arrays, so that the code that queues and copies inputs handles arrays only."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from innerloop_learner.encoders.errors import EncoderError

MAX_TEXT_BYTES = 16_384
"""Most bytes of one text, in training and serving. Encoders read only a few hundred tokens, and in a packed batch every
text takes the room of the longest one."""


def cut_text(text: str) -> str:
    """Cut a text to its first MAX_TEXT_BYTES bytes of UTF-8.

    >>> len(cut_text("é" * 20_000))
    8192
    """
    content = text.encode()
    return text if len(content) <= MAX_TEXT_BYTES else content[:MAX_TEXT_BYTES].decode(errors="ignore")


def pack_texts(texts: Sequence[str]) -> NDArray[np.uint8]:
    """Texts as rows of UTF-8 [N, L], where L is the length of the longest in bytes, at least 1. Zeros pad the others.

    Raises:
        EncoderError: a text has a zero character, which could not be told from padding.
    """
    rows = [text.encode() for text in texts]
    for index, row in enumerate(rows):
        if 0 in row:
            raise EncoderError(f"text {index} has a character U+0000; remove it")
    width = max(1, *map(len, rows)) if rows else 1
    return np.array(rows, f"S{width}").view(np.uint8).reshape(len(rows), width)


def join_packed(parts: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Concatenate packed texts [N_i, L_i] to [N, L], where N is the sum of all N_i and L the largest L_i."""
    joined = np.zeros((sum(map(len, parts)), max(part.shape[1] for part in parts)), np.uint8)
    start = 0
    for part in parts:
        joined[start : start + len(part), : part.shape[1]] = part
        start += len(part)
    return joined


def unpack_texts(packed: NDArray[np.uint8]) -> list[str]:
    """Reverse `pack_texts`: the texts of rows [N, L]."""
    rows = np.ascontiguousarray(packed).view(f"S{packed.shape[1]}").ravel()
    return [row.decode() for row in rows.tolist()]
