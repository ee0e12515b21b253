"""The four data sets that encoders are measured on, with their classes divided the same way every time."""

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ENCODED_PHOTOS, SCRATCH_PHOTOS = 100, 300
"""The first so many of a class's 600 small photographs by name, behind an encoder, and for a network from scratch. An
encoder takes 10 ms for each, and a network from scratch learns more from more."""

DATE = (2020, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Data:
    """One data set behind one encoder.

    Attributes:
        source: the data source, as `innerloop train --data` takes it.
        encoder: the encoder, as `--encoder` takes it.
        trains: whether there are classes to train and to choose on; otherwise all classes are unseen.
        scratch: data source that a small network is trained on from scratch; None if none is.
    """

    source: str
    encoder: str
    trains: bool = True
    scratch: str | None = None


def prepare(folder: Path, photos: Path, clothes: Path, digits: Path, intents: Path) -> dict[str, Data]:
    """The data sets by name; two are packed anew into `folder`, once, with folders of splits.

    Args:
        folder: where to write.
        photos: zip of small photographs, a folder a class: the first 40 classes by name train, 4 choose, 20 are unseen.
        clothes: zip of photographs of clothes, a folder a kind; all are unseen.
        digits: zip of spoken digits, DIGIT/SPEAKER_NN.wav: 0 to 4 train and choose, by other recordings, 5 to 9 are
            unseen; six speakers.
        intents: folder of train.csv and test.csv of intents: 25 train, 25 choose, 27 are unseen.
    """
    folder.mkdir(parents=True, exist_ok=True)
    few, many = (
        _pack(photos, folder / f"small_photos-{count}.zip", partial(_photo, count=count))
        for count in (ENCODED_PHOTOS, SCRATCH_PHOTOS)
    )
    spoken = _pack(digits, folder / "spoken_digits.zip", _digit)
    voices = "speakers=prefix&test_speakers=0"
    return {
        "small photographs": Data(
            f"images:{few}", "efficientnet-lite0?size=160", scratch=f"images:{many}?size=32&color=rgb"
        ),
        "clothes": Data(f"images:{clothes}", "efficientnet-lite0", trains=False),
        "spoken digits": Data(f"audio:{spoken}?{voices}", "speech-embedding", scratch=f"audio:{spoken}?{voices}"),
        "intents": Data(f"texts:{intents}?val=0.325&test=0.35", "all-minilm-l6-v2"),
    }


Divide = Callable[[Mapping[str, list[str]]], Mapping[str, str]]
"""From the files of each class to the name that each file gets; others are left out."""


def _pack(source: Path, target: Path, divide: Divide) -> Path:
    """Copy files of a zip under new names, with the split as the outermost folder."""
    if target.is_file():
        return target
    unfinished = target.with_suffix(".unfinished")
    with zipfile.ZipFile(source) as read, zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as write:
        classes: dict[str, list[str]] = {}
        for name in sorted(read.namelist()):
            if name.count("/") == 1 and not name.endswith("/"):
                classes.setdefault(name.partition("/")[0], []).append(name)
        for name, new in divide(classes).items():
            write.writestr(zipfile.ZipInfo(new, DATE), read.read(name))
    return unfinished.rename(target)


def _photo(classes: Mapping[str, list[str]], count: int) -> Mapping[str, str]:
    splits = ["train"] * 40 + ["val"] * 4 + ["test"] * (len(classes) - 44)
    return {
        name: f"{split}/{name}"
        for split, label in zip(splits, sorted(classes), strict=True)
        for name in classes[label][:count]
    }


def _digit(classes: Mapping[str, list[str]]) -> Mapping[str, str]:
    """Digits up to 4 are validation classes, too, by every fourth recording of a speaker, since there are so few."""
    renamed = {}
    for digit, names in classes.items():
        for name in names:
            take = int(Path(name).stem.rpartition("_")[2])
            if digit >= "5":
                renamed[name] = f"test/{name}"
            else:
                renamed[name] = f"val/{digit} again/{Path(name).name}" if take % 4 == 0 else f"train/{name}"
    return renamed
