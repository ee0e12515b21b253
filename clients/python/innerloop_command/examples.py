"""Labelled examples, named on the command line."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import typer

from innerloop.checks import nothing
from innerloop_command.media_folders import Media, files_in, label_folders_in
from innerloop_command.text_tables import is_list, is_table, labelled_texts_in, texts_in


@dataclass
class LabelledFiles:
    """Files of images or recordings with their labels.

    Attributes:
        paths: one per example.
        labels: one per example.
        left_out: what lay beside them and is no example, each with the reason in brackets.
    """

    paths: list[Path] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def labelled_files(arguments: Sequence[str], media: Media) -> LabelledFiles:
    """Find the files and their labels.

    Args:
        arguments: each a folder with one folder of files per label, or `label=path` where the path is a file or a
            folder of files.
        media: the kind of files to find.

    Raises:
        typer.BadParameter: an argument is neither, or a label has no files.
    """
    found = LabelledFiles()
    for number, argument in enumerate(arguments, start=1):
        if Path(argument).is_dir():
            _add_label_folders(Path(argument), media, found)
            continue
        label, path = _split(argument, number, "a folder or LABEL=PATH")
        if Path(path).is_dir():
            _add_folder(label, Path(path), media, found)
        elif Path(path).exists():
            found.paths.append(Path(path))
            found.labels.append(label)
        else:
            raise typer.BadParameter(f"there is no file or folder {path}")
    return found


def labelled_texts(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Texts and labels, one of each per example.

    Args:
        arguments: each a table of texts and labels, or `label=text`.

    Raises:
        typer.BadParameter: an argument is of another form, its label or text is empty, or the table can't be used.
    """
    texts: list[str] = []
    labels: list[str] = []
    for number, argument in enumerate(arguments, start=1):
        if is_table(Path(argument)):
            of_table, their_labels = labelled_texts_in(Path(argument))
            texts += of_table
            labels += their_labels
        else:
            label, text = _split(argument, number, "a CSV file that is there or LABEL=TEXT")
            texts.append(text)
            labels.append(label)
    return texts, labels


def at_most(shots: int, examples: Sequence[Path | str], labels: Sequence[str]) -> tuple[list[Path | str], list[str]]:
    """At most `shots` examples of each label, at equal distances among all of that label, in the order given.

    Example:
        >>> at_most(2, ["a1", "a2", "a3", "a4", "b1"], ["a", "a", "a", "a", "b"])
        (['a1', 'a3', 'b1'], ['a', 'a', 'b'])
    """
    places: dict[str, list[int]] = defaultdict(list)
    for place, label in enumerate(labels):
        places[label].append(place)
    chosen: list[int] = []
    for found in places.values():
        count = min(shots, len(found))
        chosen += [found[index * len(found) // count] for index in range(count)]
    chosen.sort()
    return [examples[place] for place in chosen], [labels[place] for place in chosen]


def asked_files(arguments: Sequence[str], media: Media) -> tuple[list[Path], list[str]]:
    """Files to ask about: of arguments that name a folder those in it, of others themselves; and what is left out.

    Raises:
        typer.BadParameter: a folder has no such files.
    """
    paths: list[Path] = []
    left_out: list[str] = []
    for argument in map(Path, arguments):
        if not argument.is_dir():
            paths.append(argument)
            continue
        entries = list(files_in(argument, media))
        found = [entry.path for entry in entries if not entry.left_out]
        beside = [f"{entry.path} ({entry.left_out})" for entry in entries if entry.left_out]
        if not found:
            raise typer.BadParameter(f"there are {_none_in(argument, media, beside)}")
        paths += found
        left_out += beside
    return paths, left_out


def asked_texts(arguments: Sequence[str]) -> list[str]:
    """Texts to ask about: of arguments that name a table or a list of texts those in it, of others themselves.

    Raises:
        typer.BadParameter: such a file can't be used.
    """
    texts: list[str] = []
    for argument in arguments:
        texts += texts_in(Path(argument)) if is_table(Path(argument)) or is_list(Path(argument)) else [argument]
    return texts


def _split(argument: str, number: int, form: str) -> tuple[str, str]:
    """Label and content of an argument.

    Raises:
        typer.BadParameter: it is of another form than `form`, or one of both is empty.
    """
    label, separator, content = argument.partition("=")
    if not separator:
        raise typer.BadParameter(f"example {number}, {argument!r}, is not {form}")
    if nothing(label) or nothing(content):
        missing = "label" if nothing(label) else form.rpartition("=")[2].lower()
        raise typer.BadParameter(f"example {number}, {argument!r}, has an empty {missing}")
    return label.strip(), content


def _add_label_folders(root: Path, media: Media, found: LabelledFiles) -> None:
    before = len(found.paths)
    for path, reason in label_folders_in(root):
        if reason:
            found.left_out.append(f"{path} ({reason})")
        elif any(entry.left_out != "hidden" for entry in files_in(path, media)):
            _add_folder(path.name, path, media, found)
        else:
            found.left_out.append(f"{path} (an empty folder)")
    if len(found.paths) == before:
        raise typer.BadParameter(
            f"{root} has no folders with {media.plural}, one folder per label; for one label, LABEL={root}"
        )


def _add_folder(label: str, folder: Path, media: Media, found: LabelledFiles) -> None:
    entries = list(files_in(folder, media))
    left_out = [f"{path} ({reason})" for path, reason in entries if reason]
    if len(left_out) == len(entries):
        raise typer.BadParameter(f"label {label!r} has {_none_in(folder, media, left_out)}")
    found.paths += [path for path, reason in entries if not reason]
    found.labels += [label for _, reason in entries if not reason]
    found.left_out += left_out


def _none_in(folder: Path, media: Media, left_out: Sequence[str]) -> str:
    """The end of a message about a folder that has no files of one kind, and what it has instead."""
    return f"no {media.plural} in {folder}" + (f", only {left_out[0]}" if left_out else "")
