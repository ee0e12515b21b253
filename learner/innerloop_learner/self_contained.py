"""Finds in an ONNX graph whatever reaches beyond its bundle, which a bundle of unknown origin must not do.

The graph's bytes are searched, because ONNX Runtime opens the files that a graph names while it loads the graph, and
offers no way to look at it before.
"""

import re

REACHES = {
    "location": "takes tensors from other files",
    "EPContext": "holds code compiled for a device",
}
"""Strings of the ONNX format: a key of each tensor that lies elsewhere, and an operator."""


def reach_of(graph: bytes) -> str:
    """How a graph reaches beyond itself, in words that follow its name in a message; empty if it does not."""
    return next((what for word, what in REACHES.items() if _field(word).search(graph)), "")


def _field(text: str) -> re.Pattern[bytes]:
    """A whole string of a protocol buffer, led by its length, which may be padded with empty bytes."""
    size = len(text)
    return re.compile(rb"(?:\x%02x|\x%02x\x80*\x00)%s" % (size, size | 0x80, text.encode()))
