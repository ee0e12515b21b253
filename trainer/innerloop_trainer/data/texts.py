"""`texts:PATH?key=value&...`: labelled texts in CSV files, for use with an encoder.

PATH is a CSV file with a header, or a folder of such files, whose rows are joined. Files do not stand for splits: the
classes of all files are shuffled with `seed` and split. `TextOptions` lists the options.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from innerloop_learner.encoders import MAX_TEXT_BYTES, cut_text
from innerloop_learner.spec import InputSpec
from innerloop_trainer.data.class_digests import digest_classes
from innerloop_trainer.data.class_examples import source_of_classes
from innerloop_trainer.data.class_split import SplitOptions, describe_split
from innerloop_trainer.data.example_set import ExampleSet
from innerloop_trainer.data.file_tree import FileTree, is_visible, title_of
from innerloop_trainer.data.found_splits import divide
from innerloop_trainer.data.left_out import Broken, LeaveOutOptions, count_kinds, counted, leave_out_small
from innerloop_trainer.data.options import TEXT, existing_path, option, read_options, write_options
from innerloop_trainer.data.source import DataError, DataSource, SourceLoader, SourceRequest, sources
from innerloop_trainer.data.tables import TABLES, Table, read_table

EXAMPLE = "texts:~/data/intents (a CSV file, or a folder of them, with columns text and label)"

LABELS = ("label", "category", "class", "intent")
"""Names by which the column of labels is found in a table of more than two columns, if only one has such a name."""

NOTHING = {"", "None", "NaN", "nan", "NaT", "NULL", "null", "<NA>", "#N/A"}
"""Texts that programs write for a missing value."""


@dataclass(frozen=True)
class TextOptions(SplitOptions, LeaveOutOptions):
    """Options of the source of texts."""

    text: str = option("text", TEXT, "Column of the texts, in any case.")
    label: str = option(
        "",
        TEXT,
        f"Column of the labels, in any case. Unless told, it is the other one of two columns, or the only one that is "
        f"called {', '.join(LABELS[:-1])} or {LABELS[-1]}.",
    )
    domains: str = option(
        "",
        TEXT,
        "Column that names the domain of each text, in any case. The classes of an episode are then of one domain, and "
        "whole domains are divided.",
    )


class Texts(SourceLoader):
    """The source of a user's own texts."""

    summary = "one's own labelled texts in CSV files, for an encoder to read"
    example = "texts:~/intents.csv?label=team"
    options = TextOptions

    def load(self, request: SourceRequest) -> DataSource:
        """As in `SourceLoader`."""
        options = read_options(request, TextOptions)
        path = existing_path(request, EXAMPLE)
        everything, notices = read_texts(options, path)
        data, small = leave_out_small(request.name, everything, options)
        splits, how = divide(options, data)
        return source_of_classes(
            f"texts:{title_of(path).removesuffix('.csv').removesuffix('.tsv')}",
            f"{len(data.examples):,} texts of {len(data.names)} classes, {describe_split(splits, how)}",
            InputSpec((MAX_TEXT_BYTES,), dtype="uint8"),
            request.device,
            train=data.select(splits["train"]),
            validation=data.select(splits["validation"]),
            test=data.select(splits["test"]),
            options=write_options(options),
            texts=True,
            notices=[*notices, *small],
        )


def read_texts(options: TextOptions, path: Path) -> tuple[ExampleSet, Sequence[str]]:
    """Read all texts by class, and give notices about texts that were left out or cut.

    Raises:
        DataError: there are no texts, or a file can't be read; the message names the file and the line.
    """
    files, notices = _files(path)
    texts, broken = defaultdict[tuple[str, str], list[str]](list), 0
    for file in files:
        broken += _read_file(options, file, texts)
    if not texts:
        raise DataError(f"texts: {path} has no texts; give a CSV file with a header, or a folder of them")
    if broken:
        notices.append(f"{counted(broken, 'row')} without a usable text and label left out")
    classes = sorted(texts)
    whole = [text for each in classes for text in texts[each]]
    cut = [cut_text(text) for text in whole]
    shorter = sum(map(str.__ne__, cut, whole))
    if shorter:
        notices.append(f"{counted(shorter, 'text')} of more than {MAX_TEXT_BYTES:,} bytes cut, as no server takes more")
    counts = np.array([len(texts[each]) for each in classes], dtype=np.int64)
    digests = digest_classes(counts, [hashlib.sha256(text.encode()).digest() for text in cut])
    names = tuple(f"{domain}/{label}" if domain else label for domain, label in classes)
    domains = tuple(domain for domain, _ in classes) if options.domains else None
    return ExampleSet(names, counts, np.array(cut, dtype=object), digests, domains=domains), notices


def _files(path: Path) -> tuple[list[Path], list[str]]:
    """The tables at a path, and notices about other files there."""
    if not path.is_dir():
        return [path], []
    there = sorted(each for each in path.iterdir() if is_visible(each.name))
    folders = [each for each in there if each.is_dir()]
    files = [each for each in there if not each.is_dir()]
    tables = [each for each in files if each.suffix.lower() in TABLES]
    others = [each for each in files if each.suffix.lower() not in TABLES]
    notices = [f"{count_kinds(others)} left out: no CSV or TSV"] if others else []
    if folders:
        notices.append(f"{counted(len(folders), 'folder')} left out: only tables in the folder itself are read")
    return tables, notices


def _read_file(options: TextOptions, file: Path, texts: dict[tuple[str, str], list[str]]) -> int:
    """Add a file's texts to those of their domain ("" for none) and label, and count its rows that can't be used."""
    shown = f"texts: {FileTree.shown(file)}"
    table = read_table(shown, file)
    text_column, label_column, domain_column = _columns(options, shown, table)
    broken = Broken(shown)
    for line, row in table.rows:
        if len(row) != len(table.header):
            broken.note(f"line {line} has {len(row)} columns, the header {len(table.header)}")
            continue
        text, label = row[text_column], row[label_column].strip()
        domain = "" if domain_column is None else row[domain_column].strip()
        if domain_column is not None and domain in NOTHING:
            broken.note(f"line {line} has no domain ({domain!r})")
        elif label in NOTHING:
            broken.note(f"line {line} has no label ({label!r})")
        elif text.strip() in NOTHING:
            broken.note(f"line {line} has no text ({text!r})")
        elif "\0" in text:
            broken.note(f"line {line} has a character U+0000")
        else:
            texts[domain, label].append(text)
    if not options.skip_broken:
        broken.refuse("mend these rows, or leave them out with ?skip_broken=true")
    return len(broken)


def _columns(options: TextOptions, shown: str, table: Table) -> tuple[int, int, int | None]:
    """The positions of the columns of texts and labels, and of domains if there are any."""
    text = _column(shown, table, "text", options.text)
    domain = _column(shown, table, "domains", options.domains) if options.domains else None
    if options.label:
        label = _column(shown, table, "label", options.label)
    elif len(table.header) == 2:
        label = 1 - text
    else:
        named = [index for index, name in enumerate(table.header) if name.casefold() in LABELS]
        label = named[0] if len(named) == 1 else _column(shown, table, "label", "label")
    if text == label:
        raise DataError(f"texts: text and label are one column, {options.text!r}; name two")
    if domain in (text, label):
        raise DataError(f"texts: {options.domains!r} names domains, and no texts or labels too; name another column")
    return text, label, domain


def _column(shown: str, table: Table, key: str, name: str) -> int:
    """The position of the column `name`: the one with exactly this name, or the only one that differs in case alone."""
    alike = [index for index, each in enumerate(table.header) if each.casefold() == name.strip().casefold()]
    exact = [index for index in alike if table.header[index] == name.strip()]
    for found in (exact, alike):
        if len(found) == 1:
            return found[0]
    columns = ", ".join(table.header) or "none"
    raise DataError(f"{shown} has no column {name!r}, only: {columns}; name it with ?{key}=...")


sources.register("texts")(Texts())
