"""Paths in the texts by which users name files and data, made independent of the folder they were written in."""

import os
from pathlib import Path


def absolute_path(text: str, folder: Path) -> str:
    """A path that is relative to a folder, made absolute; one that begins with `~` or is absolute stays.

    >>> absolute_path("photos", Path("/data")), absolute_path("../other", Path("/data"))
    ('/data/photos', '/other')
    """
    return text if text.startswith("~") else os.path.abspath(folder / text)  # noqa: PTH100 - links stay as they are


def absolute_source(text: str, folder: Path) -> str:
    """The text of a data source, its path made absolute; a source without a path, or with a URL, stays.

    >>> absolute_source("images:photos?size=32", Path("/data")), absolute_source("glyphs?size=32", Path("/data"))
    ('images:/data/photos?size=32', 'glyphs?size=32')
    """
    head, mark, options = text.partition("?")
    name, colon, path = head.partition(":")
    if not path or "://" in path:
        return text
    return f"{name}{colon}{absolute_path(path, folder)}{mark}{options}"


def same_source(text: str, other: str) -> bool:
    """Whether two texts name the same data, seen from the current folder."""
    return absolute_source(text, Path.cwd()) == absolute_source(other, Path.cwd())
