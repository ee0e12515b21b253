"""`texts:PATH[?text=text&label=label&val=0.15&test=0.2&seed=0]`: labelled texts in CSV files, to be read by an encoder.

PATH is a CSV file with a header, or a folder of such files, whose rows are put together: how files divide the examples
says nothing of classes, and these are shuffled with `seed` and split. Options:

- text, label: names of the columns. The text stands in `text` unless told; where there are two columns, the label
  stands in the other one, else in `label`.
- val, test: fractions of the classes for validation and test.
"""

import csv
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from innerloop_learner.encoders import EncoderError, pack_texts
from innerloop_learner.spec import InputSpec
from innerloop_trainer.data.class_digests import digest_classes
from innerloop_trainer.data.class_examples import source_of_classes
from innerloop_trainer.data.class_split import SplitOptions, describe_split, split_by_seed
from innerloop_trainer.data.example_set import ExampleSet
from innerloop_trainer.data.options import TEXT, existing_path, option, read_options, write_options
from innerloop_trainer.data.source import DataError, DataSource, SourceLoader, SourceRequest, sources

EXAMPLE = "texts:~/data/intents (a CSV file, or a folder of them, with columns text and label)"


@dataclass(frozen=True)
class TextOptions(SplitOptions):
    """Options of the source of texts."""

    text: str = option("text", TEXT, "Column of the texts.")
    label: str = option("", TEXT, "Column of the labels; found by the header unless told.")


class Texts(SourceLoader):
    """The source of a user's own texts."""

    options = TextOptions

    def load(self, request: SourceRequest) -> DataSource:
        """As in `SourceLoader`."""
        options = read_options(request, TextOptions)
        path = existing_path(request, EXAMPLE)
        data = read_texts(options, path)
        splits, how = split_by_seed(request.name, options, list(data.names))
        spec = InputSpec(data.examples.shape[1:], dtype="uint8")
        name = f"texts:{path.resolve().name.removesuffix('.csv')}"
        return source_of_classes(
            name,
            f"{len(data.examples):,} texts of {len(data.names)} classes, {describe_split(splits, how)}",
            spec,
            request.device,
            train=data.select(splits["train"]),
            validation=data.select(splits["validation"]),
            test=data.select(splits["test"]),
            options=write_options(options),
            texts=True,
        )


def read_texts(options: TextOptions, path: Path) -> ExampleSet:
    """All texts, packed, by class.

    Raises:
        DataError: there are none, or a file can't be read; the message names it and the line.
    """
    files = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    texts = defaultdict[str, list[str]](list)
    for file in files:
        for text, label in _rows(options, file):
            texts[label].append(text)
    if not texts:
        raise DataError(f"texts: {path} has no texts; give a CSV file with a header, or a folder of them")
    names = tuple(sorted(texts))
    try:
        packed = pack_texts([text for name in names for text in texts[name]])
    except EncoderError as error:
        raise DataError(f"texts: {path}: {error}") from error
    counts = np.array([len(texts[name]) for name in names], dtype=np.int64)
    hashes = [hashlib.sha256(text.encode()).digest() for name in names for text in texts[name]]
    return ExampleSet(names, counts, packed, digest_classes(counts, hashes))


def _rows(options: TextOptions, file: Path) -> list[tuple[str, str]]:
    """Text and label of each row."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as content:
            reader = csv.reader(content, strict=True)
            header = next(reader, [])
            text, label = _columns(options, file, header)
            rows = []
            for row in reader:
                if len(row) != len(header):
                    raise DataError(
                        f"texts: {file}, line {reader.line_num}: has {len(row)} columns, the header {len(header)}"
                    )
                rows.append((row[text], row[label]))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"texts: {file} can't be read as CSV in UTF-8 ({error})") from error
    return rows


def _columns(options: TextOptions, file: Path, header: Sequence[str]) -> tuple[int, int]:
    """Where text and label stand."""
    text = options.text
    others = [name for name in header if name != text]
    label = options.label or (others[0] if len(header) == 2 and len(others) == 1 else "label")
    for name, key in ((text, "text"), (label, "label")):
        if name not in header:
            columns = ", ".join(header) or "none"
            raise DataError(f"texts: {file} has no column {name!r}, only: {columns}; name it with ?{key}=...")
    if text == label:
        raise DataError(f"texts: text and label are one column, {text!r}; name two")
    return header.index(text), header.index(label)


sources.register("texts")(Texts())
