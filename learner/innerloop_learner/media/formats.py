"""The image formats that are read, by the names that Pillow gives them."""

from collections.abc import Mapping, Sequence
from functools import cache

from PIL import Image, features

EXTENSIONS: Mapping[str, Sequence[str]] = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".pgm", ".ppm", ".pbm", ".pnm"),
    "HEIF": (".heic", ".heif"),
    "AVIF": (".avif",),
}
"""Every format that is read, with the extensions of its files. Of a file with several pictures (animations, pages), the
first one is read."""

NEEDS: Mapping[str, str] = {
    "HEIF": 'pip install "innerloop[photos]"',
    "AVIF": "install a Pillow that reads AVIF (11.3 or later)",
}
"""How to make an installation read the formats that some installations lack, in the words of messages."""


@cache
def readable_formats() -> tuple[str, ...]:
    """The formats that this installation reads."""
    return tuple(name for name in EXTENSIONS if name not in NEEDS or _is_installed(name))


def readable_extensions() -> frozenset[str]:
    """The ends of the names of files that this installation reads, in lower case."""
    return frozenset(extension for name in readable_formats() for extension in EXTENSIONS[name])


def missing_extensions() -> dict[str, str]:
    """The ends of the names of files that this installation could read, and what it needs for that."""
    absent = [name for name in EXTENSIONS if name not in readable_formats()]
    return {extension: NEEDS[name] for name in absent for extension in EXTENSIONS[name]}


def format_names() -> str:
    """The formats that this installation reads, for messages."""
    return ", ".join(name.replace("PPM", "PGM, PPM") for name in readable_formats())


def _is_installed(name: str) -> bool:
    if name == "AVIF":
        return bool(features.check("avif"))
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return name in Image.OPEN
