"""Finds the images or recordings in a folder, and counts the files that are left out."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


@dataclass(frozen=True)
class Media:
    """A kind of files that are sent as examples.

    Attributes:
        plural, singular: what they are called.
        extensions: the ends of their names: those that trainers and servers read. Whether a server can decode HEIC and
            AVIF depends on what is installed there; it refuses, with the name of the file, what it can't.
    """

    plural: str
    singular: str
    extensions: frozenset[str]


IMAGES = Media(
    "images",
    "an image",
    frozenset(
        {
            *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
            *(".pgm", ".ppm", ".pbm", ".pnm", ".heic", ".heif", ".avif"),
        }
    ),
)
RECORDINGS = Media("recordings", "a recording", frozenset({".wav", ".wave", ".flac", ".ogg", ".oga", ".opus"}))

JUNK = frozenset({"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information"})
"""Names that operating systems give to what they leave among people's files, in lower case."""


class Entry(NamedTuple):
    """Something in a folder.

    Attributes:
        path: where it is.
        left_out: why it is left out; empty for what is used.
    """

    path: Path
    left_out: str


def files_in(folder: Path, media: Media) -> Iterator[Entry]:
    """The files of one kind in a folder, sorted by name, and what else is there. Links are followed."""
    for path in sorted(folder.iterdir()):
        if is_hidden(path):
            yield Entry(path, "hidden")
        elif path.is_dir():
            yield Entry(path, "a folder below that of a label")
        elif path.suffix.lower() not in media.extensions:
            yield Entry(path, f"not {media.singular}")
        else:
            yield Entry(path, "")


def label_folders_in(folder: Path) -> Iterator[Entry]:
    """The folders in a folder, sorted by name, and what else is there. Links are followed."""
    for path in sorted(folder.iterdir()):
        if is_hidden(path):
            yield Entry(path, "hidden")
        elif not path.is_dir():
            yield Entry(path, "in no folder of a label")
        else:
            yield Entry(path, "")


def is_hidden(path: Path) -> bool:
    """Whether a file or folder is none of the user's making: its name begins with a dot, or is one of `JUNK`."""
    return path.name.startswith(".") or path.name.lower() in JUNK
