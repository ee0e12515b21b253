"""Layouts of images that are read, those that are refused, and what is said of files that are left out."""

import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pillow_heif
import pytest
from PIL import Image

from innerloop_learner.media import formats
from innerloop_trainer.data import DataError, DataSource, load_source

Make = Callable[..., Path]
SIX = dict.fromkeys(("ant", "bee", "cat", "dog", "eel", "fox"), 2)
HALVES = [dict.fromkeys(("ant", "bee", "cat", "dog"), 2), dict.fromkeys(("eel", "fox"), 2), dict.fromkeys("gh", 2)]


def names(source: DataSource) -> list[set[str]]:
    return [set(part.names) for part in (source.train, source.validation, source.test)]


@pytest.mark.parametrize(
    "folders",
    [
        ("train", "valid", "test"),
        ("Train", "Val", "Test"),
        ("training", "validation", "testing"),
        ("TRAIN", "dev", "test"),
        ("train_set", "val_set", "test_set"),
        ("trainset", "Validation Data", "test-images"),
    ],
)
def test_folders_of_splits_are_known_by_many_names(tmp_path: Path, class_folders: Make, folders: Sequence[str]) -> None:
    for folder, classes in zip(folders, HALVES, strict=True):
        class_folders(tmp_path / "zoo" / folder, classes)
    assert names(load_source(f"images:{tmp_path / 'zoo'}?size=8")) == [set(classes) for classes in HALVES]


def test_without_a_validation_folder_classes_for_training_are_held_out_and_that_is_said(
    tmp_path: Path, class_folders: Make
) -> None:
    class_folders(tmp_path / "zoo" / "training", HALVES[0])
    class_folders(tmp_path / "zoo" / "testing", HALVES[1])
    source = load_source(f"images:{tmp_path / 'zoo'}?size=8")
    train, validation, test = names(source)
    assert (len(train), len(validation), test) == (3, 1, set(HALVES[1]))
    assert train | validation == set(HALVES[0])
    assert "validation classes held out of those for training with seed 0" in source.description
    assert names(load_source(f"images:{tmp_path / 'zoo'}?size=8&val=0.5"))[1] > validation
    with pytest.raises(DataError, match="test has no effect"):
        load_source(f"images:{tmp_path / 'zoo'}?test=0.5")


@pytest.mark.parametrize(
    ("folders", "why"),
    [
        (("train/ant", "train/bee", "test/ant", "test/bee"), "class 'ant' is in both the t.* split"),
        (("train/ant", "train/bee", "test/Ant", "test/eel"), "class '[aA]nt' is in both the t.* split"),
        (("train/ant", "train/bee", "holdout/cat"), "folders holdout, train, .*what is read is"),
        (("val/ant", "val/bee", "test/cat"), "folders test, val, .*what is read is"),
        (("train/ant", "val/bee", "valid/cat", "test/dog"), "folders test, train, val, valid"),
        (("first/ant", "first/bee", "second/ant", "second/bee"), "class 'ant' is in first and in second.*nested=true"),
        (("ant/train", "ant/test", "bee/train", "bee/test"), "class 'test' is in ant and in bee"),
        (("ant", "ant/young", "bee", "cat"), "a folder above ant/young has images of its own"),
        (("train", "test"), "lies in no class folder"),
    ],
)
def test_what_is_not_recognised_is_refused_with_what_was_seen(tmp_path: Path, folders: Sequence[str], why: str) -> None:
    for folder in sorted(folders, key=len, reverse=True):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        Image.linear_gradient("L").save(tmp_path / folder / "0.png")
    with pytest.raises(DataError, match=why):
        load_source(f"images:{tmp_path}")


def test_folders_of_one_name_are_different_classes_when_told(tmp_path: Path, class_folders: Make) -> None:
    root = class_folders(tmp_path / "letters", {"Greek/a": 1, "Greek/b": 1, "Latin/a": 1})
    assert set().union(*names(load_source(f"images:{root}?nested=true"))) == {"Greek/a", "Greek/b", "Latin/a"}


def test_a_class_may_be_called_train(tmp_path: Path, class_folders: Make) -> None:
    root = class_folders(tmp_path / "vehicles", {"car": 1, "train": 1, "plane": 1})
    assert set().union(*names(load_source(f"images:{root}"))) == {"car", "train", "plane"}


def test_what_is_left_out_is_counted_and_said(tmp_path: Path, class_folders: Make) -> None:
    root = class_folders(tmp_path / "zoo", SIX)
    (root / "empty").mkdir()
    (root / "only hidden").mkdir()
    for junk in ("only hidden/.DS_Store", "ant/Thumbs.db", "bee/._0.png", "cat/desktop.ini"):
        (root / junk).write_bytes(b"junk")
    for file in ("README", "ant/notes.txt", "bee/drawing.psd", "bee/more.txt"):
        (root / file).write_bytes(b"no image")
    Image.new("RGB", (9, 9), "red").save(root / "eel" / "red.png")
    assert load_source(f"images:{root}").notices == (
        "4 files (2 .txt, 1 without an extension, 1 .psd) of no format that is read, left out",
        "2 empty folders left out",
        "1 blank image, of one colour and nothing else, most of them in eel",
    )


def test_a_class_of_blank_images_is_refused(tmp_path: Path, class_folders: Make) -> None:
    root = class_folders(tmp_path / "zoo", SIX)
    for index in range(2):
        Image.new("RGB", (9, 9), "red").save(root / "eel" / f"{index}.png")
    with pytest.raises(DataError, match="every image of 'eel' is blank"):
        load_source(f"images:{root}")


def test_all_broken_images_are_named_at_once_or_left_out_with_a_count(tmp_path: Path, class_folders: Make) -> None:
    root = class_folders(tmp_path / "zoo", SIX)
    for name in SIX:
        (root / name / "0.png").write_bytes(b"broken")
    (root / "ant" / "gone.png").symlink_to(root / "nowhere.png")
    with pytest.raises(DataError) as refused:
        load_source(f"images:{root}")
    assert all(f"{name}/0.png is not a readable image" in str(refused.value) for name in SIX)
    assert "ant/gone.png can't be read" in str(refused.value)
    source = load_source(f"images:{root}?skip_broken=true")
    assert source.notices == ("7 broken images left out",)
    assert "6 images of 6 classes" in source.description
    (root / "ant" / "1.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"no example of ant can be read; .*min_examples=1"):
        load_source(f"images:{root}?skip_broken=true")


def test_small_classes_are_left_out_when_told(tmp_path: Path, class_folders: Make) -> None:
    root = class_folders(tmp_path / "zoo", {**dict.fromkeys("abcd", 3), "few": 2, "one": 1})
    (root / "none").mkdir()
    (root / "none" / "notes.txt").write_text("no image")
    source = load_source(f"images:{root}?min_examples=3")
    assert set().union(*names(source)) == set("abcd")
    assert source.notices[-1] == "2 classes with fewer than 3 examples left out: few, one"


def test_every_format_is_read_by_its_extension_in_any_case(tmp_path: Path, class_folders: Make) -> None:
    pillow_heif.register_heif_opener()
    root = class_folders(tmp_path / "zoo", dict.fromkeys("abc", 1))
    for form, extensions in formats.EXTENSIONS.items():
        for extension in extensions:
            Image.linear_gradient("L").save(root / "a" / f"image{extension.upper()}", form)
    total = sum(map(len, formats.EXTENSIONS.values())) + 3
    assert f"{total} images of 3 classes" in load_source(f"images:{root}").description


def test_what_a_missing_extra_would_read_is_said(
    tmp_path: Path, class_folders: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = class_folders(tmp_path / "zoo", dict.fromkeys("abc", 1))
    (root / "a" / "photo.HEIC").write_bytes(b"a photo")
    monkeypatch.setattr(formats, "readable_formats", lambda: tuple(set(formats.EXTENSIONS) - {"HEIF"}))
    (said,) = load_source(f"images:{root}").notices
    assert said.startswith('1 file (1 .heic (to read them, pip install "innerloop[photos]"))')


def test_links_to_class_folders_are_followed_and_circles_are_not(tmp_path: Path, class_folders: Make) -> None:
    parts = class_folders(tmp_path / "parts", SIX)
    links = tmp_path / "links"
    links.mkdir()
    for folder in parts.iterdir():
        (links / folder.name).symlink_to(folder)
    (parts / "ant" / "circle").symlink_to(links)
    (links / "circle").symlink_to(links)
    assert set().union(*names(load_source(f"images:{links}"))) == set(SIX)


def test_an_archive_made_on_windows_is_read(tmp_path: Path, class_folders: Make) -> None:
    root = class_folders(tmp_path / "zoo", SIX)
    with zipfile.ZipFile(tmp_path / "windows.zip", "w") as archive:
        for file in root.glob("*/*"):
            entry = zipfile.ZipInfo("x")
            entry.filename, entry.create_system = "\\".join(file.relative_to(tmp_path).parts), 0
            archive.writestr(entry, file.read_bytes())
    assert names(load_source(f"images:{tmp_path / 'windows.zip'}")) == names(load_source(f"images:{root}"))


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_a_tar_archive_gives_what_its_folder_gives(tmp_path: Path, class_folders: Make, compression: str) -> None:
    root = class_folders(tmp_path / "zoo", SIX)
    path = tmp_path / f"zoo.tar.{compression}".rstrip(".")
    with tarfile.open(path, f"w:{compression}") as archive:  # type: ignore[call-overload]
        archive.add(root, "./zoo")
    source = load_source(f"images:{path}")
    assert names(source) == names(load_source(f"images:{root}"))
    assert source.name == "images:zoo"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match="is not a readable tar archive"):
        load_source(f"images:{path}")


@pytest.mark.parametrize("prefix", ["./", "/", "/home/me/", "zoo//"])
def test_archives_with_unusual_names_of_entries_are_read(tmp_path: Path, class_folders: Make, prefix: str) -> None:
    root = class_folders(tmp_path / "zoo", SIX)
    files = {f"{prefix}{file.relative_to(root)}": file.read_bytes() for file in root.glob("*/*")}
    with zipfile.ZipFile(tmp_path / "names.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with tarfile.open(tmp_path / "names.tar", "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    for name in ("names.zip", "names.tar"):
        assert names(load_source(f"images:{tmp_path / name}")) == names(load_source(f"images:{root}")), name


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (b"ant/\xc3\xa9.png", b"ant/\xff\xa9.png", "is not a readable zip archive"),
        (b"PK\x01\x02\x3f\x03\x3f\x00", b"PK\x01\x02\x3f\x03\xff\x00", "is not a readable zip archive"),
        (b"\x09\x04\x05\x00\x5d", b"\x09\x04\x05\x00\xff", "ant/é.png can't be unpacked"),
    ],
    ids=["a name", "a version", "packed content"],
)
def test_a_damaged_zip_archive_is_refused(tmp_path: Path, before: bytes, after: bytes, message: str) -> None:
    with zipfile.ZipFile(tmp_path / "zoo.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("ant/é.png", b"any content")
    content = (tmp_path / "zoo.zip").read_bytes()
    assert before in content
    (tmp_path / "zoo.zip").write_bytes(content.replace(before, after))
    with pytest.raises(DataError, match=message):
        load_source(f"images:{tmp_path / 'zoo.zip'}")


def test_names_that_are_not_utf8_are_read_as_their_user_sees_them(tmp_path: Path, class_folders: Make) -> None:
    root = class_folders(tmp_path / "zoo", {"old": 1, "cafe\u0301": 1, "dog": 1})
    (root / "old").rename(root / os.fsdecode(b"th\xe9"))
    assert set().union(*names(load_source(f"images:{root}"))) == {"thé", "café", "dog"}
