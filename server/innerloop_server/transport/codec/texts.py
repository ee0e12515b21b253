"""Texts to arrays."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from innerloop_learner.encoders import MAX_TEXT_BYTES, EncoderError, pack_texts
from innerloop_server.transport.codec.violations import Violations

MAX_PACKED_BYTES = 64 * 2**20
"""Most bytes of all texts of one request together, each padded to the length of the longest."""


def decode_texts(texts: Sequence[str], field: str, violations: Violations) -> NDArray[np.uint8] | None:
    """Packed texts [N, L].

    Args:
        texts: of a request, no more than may be sent.
        field: path of the repeated field, for violations.
        violations: receives what is wrong.

    Returns:
        None when something is wrong.
    """
    sizes = [len(text.encode()) for text in texts]
    for index, size in enumerate(sizes):
        if size > MAX_TEXT_BYTES:
            violations.add(f"{field}[{index}]", f"has {size} bytes, at most {MAX_TEXT_BYTES} are accepted; send a part")
            return None
    if max(sizes) * len(sizes) > MAX_PACKED_BYTES:
        violations.add(field, "are too many for the longest of them; send long ones by themselves")
        return None
    try:
        return pack_texts(texts)
    except EncoderError as error:
        violations.add(field, str(error))
        return None
