"""The index of a pack: what its files hold, as JSON.

A pack is a folder of a data source's examples, ready to be drawn: per split, files of rows (`row_files`), and one index
that names them, the classes with their digests, and what the source was.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from innerloop_learner.spec import InputSpec
from innerloop_trainer.data.class_digests import ClassDigest
from innerloop_trainer.data.example_set import ExampleSet
from innerloop_trainer.data.row_files import MappedRows, RowFile
from innerloop_trainer.data.source import DataError, DataSource

INDEX, FORMAT, VERSION = "index.json", "innerloop pack", 1
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class PackIndex:
    """The index of a pack, as plain data.

    Attributes:
        name, description, rate, options, notices: those of the source, as in `DataSource`.
        input: fields of the source's `InputSpec`.
        splits: per split its files with their numbers of rows, and its classes with their numbers of examples, digests,
            and domains if there are any; and the speaker of each example if there are speakers.
    """

    name: str
    description: str
    rate: int
    options: Mapping[str, str]
    notices: Sequence[str]
    input: Mapping[str, Any]
    splits: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, source: DataSource, splits: Mapping[str, Mapping[str, Any]]) -> "PackIndex":
        """The index of a source whose splits were written."""
        return cls(
            source.name,
            source.description,
            source.rate,
            source.options,
            source.notices,
            asdict(source.input),
            splits,
        )

    def write(self, folder: Path) -> None:
        """Write the index into the pack's folder: last of all, since a folder without one is no pack."""
        content = {"format": FORMAT, "version": VERSION, **asdict(self)}
        (folder / INDEX).write_text(json.dumps(content, indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "PackIndex":
        """Read the index of the pack in a folder.

        Raises:
            DataError: there is no pack, or none that this version reads.
        """
        path = folder / INDEX
        try:
            content = json.loads(path.read_text())
        except FileNotFoundError as error:
            raise DataError(
                f"{folder} is no pack: it has no {INDEX}; make one with `innerloop data pack SOURCE --out {folder}`"
            ) from error
        except OSError as error:
            raise DataError(f"{path} can't be read ({error.strerror})") from error
        except ValueError as error:
            raise DataError(f"{path} is damaged ({error}); pack the data again") from error
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise DataError(f"{path} is not the index of a pack; name a folder that `innerloop data pack` made")
        version = content.pop("version", None)
        if version != VERSION:
            raise DataError(f"{folder} is a pack of version {version}, and {VERSION} is read; pack the data again")
        try:
            return cls(**content)
        except TypeError as error:
            raise DataError(f"{path} is damaged ({error}); pack the data again") from error

    @property
    def input_spec(self) -> InputSpec:
        """Shape and normalisation of the source's inputs."""
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in self.input.items()
        }
        return InputSpec(**given)


def is_pack(folder: Path) -> bool:
    """Whether a folder may hold a pack."""
    return (folder / INDEX).is_file()


def describe_examples(data: ExampleSet, files: Sequence[RowFile]) -> dict[str, Any]:
    """Describe a split in plain data: its classes, and the files that hold its examples in their order."""
    domains = data.domains or (None,) * len(data.names)
    rows = zip(data.names, data.counts.tolist(), data.digests, domains, strict=True)
    return {
        "files": [{"name": file.path.name, "rows": file.rows} for file in files],
        "classes": [
            {"name": name, "examples": count, **asdict(digest), **({} if domain is None else {"domain": domain})}
            for name, count, digest, domain in rows
        ],
        "speakers": None if data.speakers is None else data.speakers.tolist(),
    }


def read_examples(folder: Path, described: Mapping[str, Any], spec: InputSpec) -> ExampleSet:
    """The examples of a split that `describe_examples` described, left on disk.

    Raises:
        DataError: a file is missing or damaged, or the index contradicts itself.
    """
    classes = described["classes"]
    files = [RowFile(folder / Path(file["name"]).name, int(file["rows"])) for file in described["files"]]
    counts = np.array([each["examples"] for each in classes], dtype=np.int64)
    if counts.sum() != sum(file.rows for file in files):
        raise DataError(f"{folder / INDEX} is damaged: files have other numbers of examples than classes have")
    speakers, domains = described["speakers"], [each.get("domain") for each in classes]
    return ExampleSet(
        tuple(each["name"] for each in classes),
        counts,
        MappedRows.of_files(files, spec.shape, np.dtype(spec.dtype)),
        tuple(ClassDigest(tuple(each["known_by"]), each["content"]) for each in classes),
        None if speakers is None else np.array(speakers, dtype=np.int64),
        None if None in domains or not domains else tuple(domains),
    )
