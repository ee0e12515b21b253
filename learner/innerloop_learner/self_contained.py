"""Finds references from an ONNX graph to files or code outside its bundle, which are refused in bundles from others.

The graph's bytes are searched before it is loaded, because ONNX Runtime opens the files that a graph names while it
loads the graph.
"""

import re

REACHES = {
    "location": "takes tensors from other files",
    "EPContext": "holds code compiled for a device",
}
"""Strings of the ONNX format: a key of each tensor that lies elsewhere, and an operator."""


def reach_of(graph: bytes) -> str:
    """Describe how a graph refers to the outside, in words that follow its name in a message; empty if it does not."""
    return next((what for word, what in REACHES.items() if _field(word).search(graph)), "")


def _field(text: str) -> re.Pattern[bytes]:
    """A whole string of a protocol buffer, led by its length, which may be padded with empty bytes."""
    size = len(text)
    return re.compile(rb"(?:\x%02x|\x%02x\x80*\x00)%s" % (size, size | 0x80, text.encode()))
