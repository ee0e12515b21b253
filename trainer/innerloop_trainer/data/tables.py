"""Reads CSV files in the forms that programs and people write.

The separator is found in the header: comma, semicolon or tab. Files are in UTF-8, or in UTF-16 with a byte order mark,
as spreadsheets save "Unicode text". Blank lines are passed over.
"""

import codecs
import csv
import io
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from innerloop_trainer.data.source import DataError

TABLES = (".csv", ".tsv")
"""Extensions of the files that are tables."""

SEPARATORS = (",", ";", "\t")


@dataclass(frozen=True)
class Table:
    """The content of a file.

    Attributes:
        header: names of the columns, without blanks around them.
        rows: number of the line at which each row begins, counted from 1, and the cells of the row.
    """

    header: Sequence[str]
    rows: Sequence[tuple[int, Sequence[str]]]


def read_table(shown: str, file: Path) -> Table:
    """Read a CSV file.

    Args:
        shown: name of the file in messages.
        file: path of the file.

    Raises:
        DataError: the file can't be read.
    """
    try:
        return table_of(shown, file.read_bytes())
    except OSError as error:
        raise DataError(f"{shown} can't be read ({error.strerror})") from error


def table_of(shown: str, written: bytes) -> Table:
    """The table of the content of a CSV file, wherever that was read.

    Args:
        shown: name of the file in messages.
        written: content of the file.

    Raises:
        DataError: it is no CSV.
    """
    content = _decode(shown, written)
    skipped, separator = _separator(content)
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=separator, strict=True)
    rows, line = [], 1
    with _fields_of_any_length():
        try:
            for row in reader:
                if any(cell.strip() for cell in row) and line > skipped:
                    rows.append((line, row))
                line = reader.line_num + 1
        except csv.Error as error:
            raise DataError(
                f"{shown}, line {line}: can't be read as CSV ({error}); a quote inside a quoted cell is written twice"
            ) from error
    if not rows:
        return Table((), ())
    (_, header), *rest = rows
    return Table(
        [name.strip() for name in header], [(line, _without_empty_end(row, len(header))) for line, row in rest]
    )


def _decode(shown: str, content: bytes) -> str:
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{shown}, line {line}: can't be read as CSV in UTF-8 ({error.reason}); save it as CSV in UTF-8"
        ) from error


def _separator(content: str) -> tuple[int, str]:
    """The number of lines before the header, and the separator of columns."""
    told = re.match(r"sep=([,;\t])\r?\n", content)  # Excel reads and writes such a line
    if told:
        return 1, told[1]
    header = next((line for line in io.StringIO(content) if line.strip()), "")
    return 0, max(SEPARATORS, key=lambda separator: len(next(csv.reader([header], delimiter=separator), [])))


@contextmanager
def _fields_of_any_length() -> Iterator[None]:
    """Lift the csv module's limit on the length of a cell, since long texts are cut later."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _without_empty_end(row: Sequence[str], columns: int) -> Sequence[str]:
    """A row without the empty cells that spreadsheets leave behind the last column."""
    return row[:columns] if not any(cell.strip() for cell in row[columns:]) else row
