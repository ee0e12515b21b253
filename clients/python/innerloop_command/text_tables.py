"""Reads texts from CSV files, by the rules by which the trainer's source `texts:` reads them, and from plain files.

The separator is found in the header: comma, semicolon or tab. Files are in UTF-8, or in UTF-16 with a byte order mark.
"""

import codecs
import csv
import io
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer

from innerloop.checks import listing

TABLES = (".csv", ".tsv")
PLAIN = ".txt"
"""Ends of the names of tables, and of files that hold a text in each line."""

TEXT = "text"
LABELS = ("label", "category", "class", "intent")
"""Names by which the column of labels is found in a table of more than two columns, if only one has such a name."""

NOTHING = {"", "None", "NaN", "nan", "NaT", "NULL", "null", "<NA>", "#N/A"}
"""Cells that programs write for a missing value."""

SEPARATORS = (",", ";", "\t")

Rows = Sequence[tuple[int, Sequence[str]]]
"""The number of the line at which each row begins, counted from 1, and the cells of the row."""


def is_table(path: Path) -> bool:
    """Whether a path names a table that is there."""
    return path.suffix.lower() in TABLES and path.is_file()


def is_list(path: Path) -> bool:
    """Whether a path names a file that is there and holds a text in each line."""
    return path.suffix.lower() == PLAIN and path.is_file()


def labelled_texts_in(file: Path) -> tuple[list[str], list[str]]:
    """The texts of a table and their labels, one of each per row.

    Raises:
        typer.BadParameter: the file is no such table, or rows have no text or label; it names file and lines.
    """
    header, rows = _read(file)
    text = _column(file, header, TEXT)
    if len(header) == 2:
        label = 1 - text
    else:
        named = [index for index, name in enumerate(header) if name.casefold() in LABELS]
        label = named[0] if len(named) == 1 else _column(file, header, LABELS[0])
    _refuse_broken(file, header, rows, {text: "text", label: "label"})
    return [row[text] for _, row in rows], [row[label].strip() for _, row in rows]


def texts_in(file: Path) -> list[str]:
    """The texts of a table, from its column "text" or its only one, or of a plain file, one in each line.

    Raises:
        typer.BadParameter: the file holds no texts; it is named.
    """
    if not is_table(file):
        found = [line for line in _decoded(file).splitlines() if line.strip()]
        if not found:
            raise typer.BadParameter(f"{file} has no texts, one in each line")
        return found
    header, rows = _read(file)
    text = 0 if len(header) == 1 else _column(file, header, TEXT)
    _refuse_broken(file, header, rows, {text: "text"})
    return [row[text] for _, row in rows]


def _read(file: Path) -> tuple[Sequence[str], Rows]:
    """Header and rows of a table; blank lines are passed over."""
    content = _decoded(file)
    told = re.match(r"sep=([,;\t])\r?\n", content)  # Excel reads and writes such a line
    first = next((line for line in io.StringIO(content) if line.strip()), "")
    separator = (
        told[1] if told else max(SEPARATORS, key=lambda each: len(next(csv.reader([first], delimiter=each), [])))
    )
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=separator, strict=True)
    rows, line = [], 1
    with _cells_of_any_length():
        try:
            for row in reader:
                if any(cell.strip() for cell in row) and line > bool(told):
                    rows.append((line, row))
                line = reader.line_num + 1
        except csv.Error as error:
            raise typer.BadParameter(
                f"{file}, line {line}: can't be read as CSV ({error}); a quote inside a quoted cell is written twice"
            ) from error
    if len(rows) < 2:
        raise typer.BadParameter(f"{file} has no texts: give it a header, with a column {TEXT!r}, and a row for each")
    (_, header), *rest = rows
    columns = len(header)
    return [name.strip() for name in header], [
        (line, row[:columns] if not any(cell.strip() for cell in row[columns:]) else row) for line, row in rest
    ]


def _decoded(file: Path) -> str:
    content = file.read_bytes()
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise typer.BadParameter(f"{file}, line {line}: is not UTF-8 ({error.reason}); save it in UTF-8") from error


@contextmanager
def _cells_of_any_length() -> Iterator[None]:
    """Lift the csv module's limit on the length of a cell; servers say which texts are too long."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _column(file: Path, header: Sequence[str], name: str) -> int:
    """The position of a column: the one with exactly this name, or the only one that differs in case alone."""
    alike = [index for index, each in enumerate(header) if each.casefold() == name]
    exact = [index for index in alike if header[index] == name]
    for found in (exact, alike):
        if len(found) == 1:
            return found[0]
    raise typer.BadParameter(f"{file} has no column {name!r}, only: {', '.join(header)}; name one so in its header")


def _refuse_broken(file: Path, header: Sequence[str], rows: Rows, needed: dict[int, str]) -> None:
    """Refuse rows that are too long or too short, or lack what is needed, by column."""
    broken = []
    for line, row in rows:
        if len(row) != len(header):
            broken.append(f"line {line} has {len(row)} columns, the header {len(header)}")
        else:
            broken += [
                f"line {line} has no {name}" for column, name in needed.items() if row[column].strip() in NOTHING
            ]
    if broken:
        raise typer.BadParameter(f"{file}: {listing(broken)}; mend these rows")
