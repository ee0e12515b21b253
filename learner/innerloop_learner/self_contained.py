"""What an ONNX graph may not hold, since a bundle may come from anybody: ways to reach beyond the bundle.

Read off the bytes: ONNX Runtime opens such files while it loads a graph, and gives no way to look at a graph before.
"""

import re

REACHES = {
    "location": "takes tensors from other files",
    "EPContext": "holds code compiled for a device",
}
"""Strings of the ONNX format: a key of each tensor that lies elsewhere, and an operator."""


def reach_of(graph: bytes) -> str:
    """How a graph reaches beyond itself, in words that go behind its name; nothing if it doesn't."""
    return next((what for word, what in REACHES.items() if _field(word).search(graph)), "")


def _field(text: str) -> re.Pattern[bytes]:
    """A whole string of a protocol buffer, led by its length, which may be padded with empty bytes."""
    size = len(text)
    return re.compile(rb"(?:\x%02x|\x%02x\x80*\x00)%s" % (size, size | 0x80, text.encode()))
