"""Converted graphs kept on disk, so that an encoder is converted once."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from innerloop_trainer.data.cache import cache_folder, check_owner, say_once, write_whole


def cached_graph(name: str, key: str, convert: Callable[[], bytes]) -> bytes:
    """The graph that `convert` makes, read from disk if it was made before.

    The file's name ends in the digest of its content, so a damaged file is never used.

    Args:
        name: name of the encoder.
        key: digest of everything that the graph depends on, in hexadecimal.
        convert: function that makes the graph.
    """
    folder, start = cache_folder(), f"encoder-{name}-{key[:16]}-"
    for file in _found(folder, start):
        content = file.read_bytes()
        if file.name == _name(start, content):
            return content
    content = convert()
    try:
        write_whole(folder / _name(start, content), content)
    except OSError as error:
        say_once(folder, error.strerror or str(error))
    return content


def _found(folder: Path, start: str) -> list[Path]:
    try:
        check_owner(folder)
        return sorted(folder.glob(f"{start}*.onnx"))
    except OSError:
        return []


def _name(start: str, content: bytes) -> str:
    return f"{start}{hashlib.sha256(content).hexdigest()[:16]}.onnx"
