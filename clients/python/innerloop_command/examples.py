"""Labelled examples, named on the command line."""

from collections.abc import Iterable
from pathlib import Path

import typer

_SUFFIXES = {".png", ".jpg", ".jpeg"}


def labelled_files(arguments: Iterable[str]) -> tuple[list[Path], list[str]]:
    """Find the files and their labels.

    Args:
        arguments: each a folder with one folder of images per label, or `label=path` where the path is an image or a
            folder of images.

    Returns:
        paths and labels, one of each per example.

    Raises:
        typer.BadParameter: an argument is neither, or there is nothing to find in it.
    """
    found = [pair for argument in arguments for pair in _read_argument(argument)]
    return [path for path, _ in found], [label for _, label in found]


def labelled_texts(arguments: Iterable[str]) -> tuple[list[str], list[str]]:
    """Texts and labels, one of each per example, of arguments `label=text`.

    Raises:
        typer.BadParameter: an argument is of another form.
    """
    pairs = [argument.partition("=") for argument in arguments]
    for label, separator, _ in pairs:
        if not (label and separator):
            raise typer.BadParameter(f"{label!r} is not LABEL=TEXT")
    return [text for _, _, text in pairs], [label for label, _, _ in pairs]


def _read_argument(argument: str) -> list[tuple[Path, str]]:
    if Path(argument).is_dir():
        folders = sorted(entry for entry in Path(argument).iterdir() if entry.is_dir())
        pairs = [(path, folder.name) for folder in folders for path in _images(folder)]
        if not pairs:
            raise typer.BadParameter(f"{argument} has no folders with PNG or JPEG files, one folder per label")
        return pairs
    label, separator, path = argument.partition("=")
    if not (label and separator):
        raise typer.BadParameter(f"{argument!r} is neither a folder nor LABEL=PATH")
    if not Path(path).is_dir():
        return [(Path(path), label)]
    pairs = [(image, label) for image in _images(Path(path))]
    if not pairs:
        raise typer.BadParameter(f"{path} has no PNG or JPEG files")
    return pairs


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
