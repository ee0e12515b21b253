"""`texts:PATH[?text=text&label=label&val=0.15&test=0.2&seed=0]`: labelled texts in CSV files, to be read by an encoder.

PATH is a CSV file with a header, or a folder of such files, whose rows are put together: how files divide the examples
says nothing of classes, and these are shuffled with `seed` and split. Options:

- text, label: names of the columns. The text stands in `text` unless told; where there are two columns, the label
  stands in the other one, else in `label`.
- val, test: fractions of the classes for validation and test.
"""

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from innerloop_learner.encoders import EncoderError, pack_texts
from innerloop_learner.spec import InputSpec
from innerloop_trainer.data.class_examples import source_of_classes
from innerloop_trainer.data.class_split import SPLIT_OPTIONS, describe_split, split_by_seed
from innerloop_trainer.data.example_set import ExampleSet
from innerloop_trainer.data.options import existing_path, reject_unknown
from innerloop_trainer.data.source import DataError, DataSource, SourceLoader, SourceRequest, sources

EXAMPLE = "texts:~/data/intents (a CSV file, or a folder of them, with columns text and label)"


class Texts(SourceLoader):
    """The source of a user's own texts."""

    def load(self, request: SourceRequest) -> DataSource:
        """As in `SourceLoader`."""
        reject_unknown(request, ("text", "label", *SPLIT_OPTIONS))
        path = existing_path(request, EXAMPLE)
        data = read_texts(request, path)
        splits, how = split_by_seed(request, list(data.names))
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
            texts=True,
        )


def read_texts(request: SourceRequest, path: Path) -> ExampleSet:
    """All texts, packed, by class.

    Raises:
        DataError: there are none, or a file can't be read; the message names it and the line.
    """
    files = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    texts = defaultdict[str, list[str]](list)
    for file in files:
        for text, label in _rows(request, file):
            texts[label].append(text)
    if not texts:
        raise DataError(f"texts: {path} has no texts; give a CSV file with a header, or a folder of them")
    names = tuple(sorted(texts))
    try:
        packed = pack_texts([text for name in names for text in texts[name]])
    except EncoderError as error:
        raise DataError(f"texts: {path}: {error}") from error
    return ExampleSet(names, np.array([len(texts[name]) for name in names], dtype=np.int64), packed)


def _rows(request: SourceRequest, file: Path) -> list[tuple[str, str]]:
    """Text and label of each row."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as content:
            reader = csv.reader(content, strict=True)
            header = next(reader, [])
            text, label = _columns(request, file, header)
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


def _columns(request: SourceRequest, file: Path, header: Sequence[str]) -> tuple[int, int]:
    """Where text and label stand."""
    text = request.options.get("text", "text")
    others = [name for name in header if name != text]
    label = request.options.get("label", others[0] if len(header) == 2 and len(others) == 1 else "label")
    for name, option in ((text, "text"), (label, "label")):
        if name not in header:
            columns = ", ".join(header) or "none"
            raise DataError(f"texts: {file} has no column {name!r}, only: {columns}; name it with ?{option}=...")
    if text == label:
        raise DataError(f"texts: text and label are one column, {text!r}; name two")
    return header.index(text), header.index(label)


sources.register("texts")(Texts())
