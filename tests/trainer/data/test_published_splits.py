"""Data sets of papers, read from small made-up copies of the layouts in which they are passed on."""

import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from innerloop_learner.encoders import EncoderSpec
from innerloop_trainer.data import DataError, DataSource, EpisodeShape, load_source, sources
from innerloop_trainer.data.published_splits import FC100_SPLITS, PublishedSplit

Make = Callable[[Path], Path]
Classes = Mapping[str, Sequence[str]]

PUBLISHED = ("cifar-fs", "mini-imagenet", "tiered-imagenet", "fc100", "cub")


def photo(path: Path, seed: int = 0) -> None:
    """Write a coloured image of 9 x 12 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng([seed, *path.name.encode()]).integers(0, 256, (9, 12, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def split_folders(root: Path, classes: Classes) -> Path:
    """Folders train, val and test with class folders of three images in them."""
    for split, names in classes.items():
        for name in names:
            for number in range(3):
                photo(root / split / name / f"{name}_{number}.png")
    return root


def class_folders(root: Path, names: Sequence[str]) -> None:
    for name in names:
        for number in range(3):
            photo(root / name / f"{name}_{number}.png")


CIFAR_FS = {"train": ["apple", "bus", "train"], "val": ["clock", "cloud"], "test": ["dolphin", "elephant"]}


def cifar_fs(root: Path) -> Path:
    """The archive of R2D2, with a class of CIFAR-100 by the name of a split."""
    class_folders(root / "cifar100" / "data", [name for names in CIFAR_FS.values() for name in names])
    lists = root / "cifar100" / "splits" / "bertinetto"
    lists.mkdir(parents=True)
    for split, names in CIFAR_FS.items():
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return root / "cifar100"


def mini_imagenet(root: Path) -> Path:
    """Images in one folder, and the lists of Ravi and Larochelle."""
    for split, names in {"train": ["n01", "n02"], "val": ["n03"], "test": ["n04"]}.items():
        rows = [(f"{name}0000000{number}.jpg", name) for name in names for number in range(3)]
        (root / f"{split}.csv").write_text("filename,label\n" + "".join(f"{file},{name}\n" for file, name in rows))
        for file, _ in rows:
            photo(root / "images" / file)
    return root


def fc100(root: Path) -> Path:
    """Class folders of CIFAR-100, two of each split, and another."""
    class_folders(root / "cifar100" / "data", ["trout", "tractor", "bear", "worm", "baby", "bee", "unicorn"])
    return root


def cub(root: Path) -> Path:
    """The original archive, some numbers missing, and masks of the same names beside the images."""
    birds = ["001.Albatross", "002.Auk", "003.Bunting", "004.Cowbird", "008.Crow", "010.Finch", "199.Wren"]
    class_folders(root / "CUB_200_2011" / "images", birds)
    class_folders(root / "segmentations", birds)
    (root / "CUB_200_2011" / "train_test_split.txt").write_text("1 0\n2 1\n")
    return root


ORIGINALS: Mapping[str, tuple[Make, list[list[str]]]] = {
    "cifar-fs": (cifar_fs, [["apple", "bus", "train"], ["clock", "cloud"], ["dolphin", "elephant"]]),
    "mini-imagenet": (mini_imagenet, [["n01", "n02"], ["n03"], ["n04"]]),
    "fc100": (fc100, [["tractor", "trout"], ["bear", "worm"], ["baby", "bee"]]),
    "cub": (cub, [["001.Albatross", "003.Bunting", "199.Wren"], ["002.Auk", "010.Finch"], ["004.Cowbird", "008.Crow"]]),
}


def names(source: DataSource) -> list[list[str]]:
    return [sorted(part.names) for part in (source.train, source.validation, source.test)]


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_layout_of_the_original_archive_is_read(name: str, tmp_path: Path, zipped: Callable[[Path], Path]) -> None:
    make, expected = ORIGINALS[name]
    (tmp_path / "data").mkdir()
    folder = make(tmp_path / "data")
    source = load_source(f"{name}:{folder}?size=8")
    assert names(source) == expected
    assert source.name == name
    assert source.input.shape == (3, 8, 8)
    archived = load_source(f"{name}:{zipped(folder)}?size=8")
    assert names(archived) == expected
    assert archived.description == source.description
    tasks = [
        each.train.sample(EpisodeShape(2, 1, 2), 2, torch.Generator().manual_seed(0)) for each in (source, archived)
    ]
    assert torch.equal(tasks[0].query.x, tasks[1].query.x)


@pytest.mark.parametrize("name", PUBLISHED)
def test_folders_of_the_splits_are_read(name: str, tmp_path: Path) -> None:
    split_folders(tmp_path / "inside" / "data", {"train": ["a", "b"], "val": ["c"], "test": ["d", "e"]})
    source = load_source(f"{name}:{tmp_path}?size=8x6")
    assert names(source) == [["a", "b"], ["c"], ["d", "e"]]
    assert source.input.shape == (3, 8, 6)
    assert source.description.endswith(
        "15 images, RGB, resized to 8 x 6, split as published: 2 classes for training, 1 for validation, 2 for test"
    )


@pytest.mark.parametrize(("name", "pixels"), [*zip(PUBLISHED, (32, 84, 84, 32, 84), strict=True)])
def test_images_have_the_size_that_papers_take(name: str, pixels: int, tmp_path: Path) -> None:
    root = split_folders(tmp_path, {"train": ["a"], "val": ["b"], "test": ["c"]})
    assert load_source(f"{name}:{root}").input.shape == (3, pixels, pixels)
    photos = EncoderSpec("images", features=4, output="features", shape=(3, 20, 10))
    assert sources[name].options_for(photos) == {"size": "20x10"}
    texts = EncoderSpec("texts", features=4, output="features", pooling="mean", max_tokens=8)
    assert sources[name].options_for(texts) == {}


def test_folders_of_the_splits_go_before_the_lists(tmp_path: Path) -> None:
    root = cifar_fs(tmp_path)
    split_folders(root / "processed", {"train": ["a"], "val": ["b"], "test": ["c"]})
    source = load_source(f"cifar-fs:{root}?size=8")
    assert names(source) == [["a"], ["b"], ["c"]]
    assert "21 images of no split left out" in source.notices


def test_a_copy_with_other_numbers_of_classes_is_said_to_be_one(tmp_path: Path) -> None:
    notices = load_source(f"fc100:{fc100(tmp_path)}?size=8").notices
    assert notices[0] == (
        "FC100 (Oreshkin et al. 2018) has 60, 20 and 20 classes for training, validation and test, and this copy has "
        "2, 2 and 2: figures on it don't compare with published ones"
    )
    assert notices[1] == "3 images of no split left out"


def test_a_copy_with_the_published_numbers_of_classes_needs_no_notice(tmp_path: Path) -> None:
    for names_of_split in FC100_SPLITS.values():
        for name in names_of_split.split():
            photo(tmp_path / "data" / name / "0.png")
    source = load_source(f"fc100:{tmp_path}?size=2")
    assert not source.notices
    assert [len(part) for part in names(source)] == [60, 20, 20]


def test_the_numbers_of_classes_are_those_of_the_papers() -> None:
    loaders = [sources[name] for name in PUBLISHED]
    counts = [loader.counts for loader in loaders if isinstance(loader, PublishedSplit)]
    assert counts == [(64, 16, 20), (64, 16, 20), (351, 97, 160), (60, 20, 20), (100, 50, 50)]
    divided = {split: names.split() for split, names in FC100_SPLITS.items()}
    assert {split: len(set(names)) for split, names in divided.items()} == {"train": 60, "validation": 20, "test": 20}
    assert len(set().union(*divided.values())) == 100


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize(
    "file", ["train_images_png.pkl", "FC100_train.pickle", "train_images.npz", "cifar-100-python/meta"]
)
def test_pickle_files_are_refused_unread_with_what_to_do(name: str, file: str, tmp_path: Path) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(Trap()))
    for place in (tmp_path, path):
        with pytest.raises(
            DataError, match=r"unpickling runs any code.*write their images out as train/CLASS/NAME\.png"
        ):
            load_source(f"{name}:{place}")


class Trap:
    """An object whose unpickling fails the test."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return pytest.fail, ("it was unpickled",)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_missing_split_is_named_with_what_is_read(name: str, tmp_path: Path) -> None:
    root = split_folders(tmp_path, {"train": ["a", "b"], "test": ["c"]})
    with pytest.raises(DataError, match="no classes for validation; what is read is train, val and test folders"):
        load_source(f"{name}:{root}")


def test_class_folders_without_lists_are_refused_where_no_rule_divides_them(tmp_path: Path) -> None:
    class_folders(tmp_path / "data", ["apple", "bus"])
    for name, read in (
        ("cifar-fs", r"bertinetto/train\.txt"),
        ("mini-imagenet", r"train\.csv"),
        ("cub", r"NUMBER\.CLASS"),
    ):
        with pytest.raises(DataError, match=rf"no classes for train and validation and test; .* or .*{read}"):
            load_source(f"{name}:{tmp_path}")


def test_classes_and_images_that_lists_name_must_be_there(tmp_path: Path) -> None:
    root = cifar_fs(tmp_path / "cifar")
    (root / "data" / "clock").rename(root / "data" / "watch")
    with pytest.raises(DataError, match=r"bertinetto/val\.txt names the class 'clock', of which there are no images"):
        load_source(f"cifar-fs:{root}")
    (tmp_path / "mini").mkdir()
    root = mini_imagenet(tmp_path / "mini")
    (root / "images" / "n0300000001.jpg").unlink()
    photo(root / "copies" / "n0400000002.jpg")
    with pytest.raises(
        DataError,
        match=r"test\.csv names the image n0400000002\.jpg, of which there are 2; "
        r"val\.csv names the image n0300000001\.jpg, of which there are 0; put each image once into a folder beside",
    ):
        load_source(f"mini-imagenet:{root}")


def test_no_class_may_be_in_two_splits_or_places(tmp_path: Path) -> None:
    root = split_folders(tmp_path / "folders", {"train": ["a"], "val": ["b"], "test": ["a"]})
    with pytest.raises(DataError, match=r"class 'a' is in (test|train) and in (test|train); give the folder"):
        load_source(f"tiered-imagenet:{root}")
    root = cifar_fs(tmp_path / "cifar")
    (root / "splits" / "bertinetto" / "test.txt").write_text("apple\n")
    with pytest.raises(DataError, match="class 'apple' is in the lists of test and train"):
        load_source(f"cifar-fs:{root}")
    (tmp_path / "mini").mkdir()
    root = mini_imagenet(tmp_path / "mini")
    (root / "test.csv").write_text("filename,label\nn0400000001.jpg,n01\n")
    with pytest.raises(DataError, match="class 'n01' is in the lists of test and train"):
        load_source(f"mini-imagenet:{root}")


def test_lists_of_another_form_are_named(tmp_path: Path) -> None:
    root = mini_imagenet(tmp_path)
    (root / "val.csv").write_text("image,label\nn0300000001.jpg,n03\n")
    with pytest.raises(DataError, match=r"val\.csv has no columns filename and label"):
        load_source(f"mini-imagenet:{root}")
    (root / "val.csv").write_text("filename,label\nn0300000001.jpg\n")
    with pytest.raises(DataError, match=r"val\.csv, line 2: there is no filename or no label"):
        load_source(f"mini-imagenet:{root}")
    (root / "val.csv").write_text("filename,label\nn0300000001.jpg,n03\n")
    (root / "more").mkdir()
    (root / "more" / "val.csv").write_text("filename,label\n")
    with pytest.raises(DataError, match=r"more/val\.csv and val\.csv are both lists of one split"):
        load_source(f"mini-imagenet:{root}")


def test_an_archive_in_a_folder_and_a_damaged_one_are_named(tmp_path: Path, zipped: Callable[[Path], Path]) -> None:
    archive = zipped(cifar_fs(tmp_path / "data"))
    place = tmp_path / "archives"
    place.mkdir()
    archive.rename(place / "cifar100.zip")
    with pytest.raises(DataError, match=r"no images .* among 1 file \(1 \.zip\); give the path of an archive itself"):
        load_source(f"cifar-fs:{place}")
    damaged = place / "cifar100.zip"
    damaged.write_bytes(damaged.read_bytes()[:500])
    with pytest.raises(DataError, match=r"cifar100\.zip is not a readable zip archive .*download it again"):
        load_source(f"cifar-fs:{damaged}")


def test_an_empty_folder_and_a_damaged_image_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no images .* among 0 files .*; what is read is train, val and test folders"):
        load_source(f"cub:{tmp_path / 'empty'}")
    root = split_folders(tmp_path / "data", {"train": ["a"], "val": ["b"], "test": ["c"]})
    (root / "val" / "b" / "b_1.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"val/b/b_1\.png is not a readable image.*; replace them"):
        load_source(f"cub:{root}")
