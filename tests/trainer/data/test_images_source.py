from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from innerloop_trainer.data import DataError, DataSource, EpisodeShape, images, load_source
from innerloop_trainer.data.class_digests import ClassDigest

Make = Callable[..., Path]
SIX = dict.fromkeys(("ant", "bee", "cat", "dog", "eel", "fox"), 3)


def names(source: DataSource) -> list[set[str]]:
    return [set(part.names) for part in (source.train, source.validation, source.test)]


def test_class_folders_are_split_by_class_and_resized_to_64_pixels(tmp_path: Path, class_folders: Make) -> None:
    source = load_source(f"images:{class_folders(tmp_path / 'zoo', SIX)}")
    train, validation, test = names(source)
    assert [len(part) for part in (train, validation, test)] == [4, 1, 1]
    assert train | validation | test == set(SIX)
    assert source.input.shape == (3, 64, 64)
    assert source.name == "images:zoo"
    episodes = source.train.sample(EpisodeShape(3, 1, 2), 2, torch.Generator().manual_seed(0))
    assert episodes.support.x.shape == (2, 3, 3, 64, 64)
    assert episodes.support.x.min() >= -1
    assert episodes.support.x.max() <= 1


def test_fractions_and_seed_of_the_class_split_can_be_chosen(tmp_path: Path, class_folders: Make) -> None:
    root = class_folders(tmp_path / "zoo", {f"class {index}": 1 for index in range(20)})
    assert [len(part) for part in names(load_source(f"images:{root}?val=0.3&test=0.4"))] == [6, 6, 8]
    assert names(load_source(f"images:{root}")) == names(load_source(f"images:{root}?seed=0"))
    assert names(load_source(f"images:{root}")) != names(load_source(f"images:{root}?seed=1"))


def test_split_folders_are_the_splits(tmp_path: Path, class_folders: Make) -> None:
    class_folders(tmp_path / "zoo" / "train", {"ant": 2, "bee": 2})
    class_folders(tmp_path / "zoo" / "val", {"cat": 2})
    class_folders(tmp_path / "zoo" / "test", {"dog": 2})
    assert names(load_source(f"images:{tmp_path / 'zoo'}")) == [{"ant", "bee"}, {"cat"}, {"dog"}]
    with pytest.raises(DataError, match="seed has no effect where folders are the splits"):
        load_source(f"images:{tmp_path / 'zoo'}?seed=3")


def test_a_zip_archive_gives_what_its_folder_gives(
    tmp_path: Path, class_folders: Make, zipped: Callable[[Path], Path]
) -> None:
    root = class_folders(tmp_path / "outer" / "zoo", SIX)
    folder, archive = load_source(f"images:{root}"), load_source(f"images:{zipped(tmp_path / 'outer')}")
    assert names(folder) == names(archive)
    shape, generator = EpisodeShape(3, 1, 1), torch.Generator()
    a, b = (source.train.sample(shape, 2, generator.manual_seed(0)) for source in (folder, archive))
    assert torch.equal(a.query.x, b.query.x)


def test_size_and_colour_follow_the_options(tmp_path: Path, class_folders: Make) -> None:
    root = class_folders(tmp_path / "zoo", SIX)
    assert load_source(f"images:{root}?size=28").input.shape == (3, 28, 28)
    assert load_source(f"images:{root}?size=10x20&color=gray").input.shape == (1, 10, 20)


def test_images_without_colour_become_gray_by_themselves(tmp_path: Path, class_folders: Make) -> None:
    root = class_folders(tmp_path / "zoo", SIX, mode="L")
    assert load_source(f"images:{root}?size=8").input.shape == (1, 8, 8)
    assert load_source(f"images:{root}?size=8&color=rgb").input.shape == (3, 8, 8)
    Image.new("RGB", (5, 5), (9, 0, 0)).save(root / "ant" / "red.png")
    assert load_source(f"images:{root}?size=8").input.shape == (3, 8, 8)


def test_a_changed_file_is_decoded_again(tmp_path: Path, class_folders: Make) -> None:
    root = class_folders(tmp_path / "zoo", {"ant": 2, "bee": 2, "cat": 2})
    load_source(f"images:{root}")
    (root / "bee" / "1.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"zoo: bee/1\.png is not a readable image.*; replace or remove .*skip_broken"):
        load_source(f"images:{root}")


def test_folders_in_class_folders_are_classes_of_their_own(tmp_path: Path, class_folders: Make) -> None:
    root = class_folders(tmp_path / "letters", {"Greek/alpha": 1, "Greek/beta": 1, "Latin/a": 1})
    assert set().union(*names(load_source(f"images:{root}"))) == {"Greek/alpha", "Greek/beta", "Latin/a"}


def test_hidden_files_macos_leftovers_and_other_files_are_ignored(
    tmp_path: Path, class_folders: Make, zipped: Callable[[Path], Path]
) -> None:
    root = class_folders(tmp_path / "zoo", SIX)
    (root / ".git").mkdir()
    (root / "__MACOSX" / "ant").mkdir(parents=True)
    for junk in (".DS_Store", "ant/._0.png", "__MACOSX/ant/0.png", "ant/notes.txt", "README.md"):
        (root / junk).write_bytes(b"junk")
    for path in (root, zipped(root)):
        assert set().union(*names(load_source(f"images:{path}"))) == set(SIX)


def test_a_class_folder_without_images_is_named(
    tmp_path: Path, class_folders: Make, zipped: Callable[[Path], Path]
) -> None:
    root = class_folders(tmp_path / "zoo", SIX)
    (root / "gnu").mkdir()
    (root / "gnu" / "notes.txt").write_text("no picture yet")
    for path in (root, zipped(root)):
        with pytest.raises(
            DataError, match=r"folder (zoo/)?gnu has no images .*1 \.txt.*; add images, .*min_examples=1"
        ):
            load_source(f"images:{path}")


def test_an_image_outside_of_class_folders_is_named(tmp_path: Path, class_folders: Make) -> None:
    root = class_folders(tmp_path / "zoo", SIX)
    Image.new("L", (4, 4)).save(root / "stray.png")
    with pytest.raises(DataError, match=r"stray\.png lies in no class folder; move it"):
        load_source(f"images:{root}")


def test_a_folder_without_images_and_a_file_that_is_no_archive_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty has no images .*what is read is a folder for each class"):
        load_source(f"images:{tmp_path / 'empty'}")
    (tmp_path / "text.zip").write_text("not a zip")
    with pytest.raises(DataError, match=r"text\.zip is not a readable zip archive"):
        load_source(f"images:{tmp_path / 'text.zip'}")


def test_a_damaged_file_in_an_archive_is_named(
    tmp_path: Path, class_folders: Make, zipped: Callable[[Path], Path]
) -> None:
    archive = zipped(class_folders(tmp_path / "zoo", SIX))
    content = bytearray(archive.read_bytes())
    content[content.index(b"\x89PNG") + 20] ^= 0xFF  # the archive's own checksum no longer fits
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"zoo\.zip: zoo/ant/0\.png can't be unpacked .*; replace or remove them"):
        load_source(f"images:{archive}")


def test_too_few_classes_to_split_are_refused_for_training(tmp_path: Path, class_folders: Make) -> None:
    root = class_folders(tmp_path / "zoo", {"ant": 3, "bee": 3})
    source = load_source(f"images:{root}")
    with pytest.raises(
        DataError, match="images:zoo, training split has no classes; add classes, or lower val and test"
    ):
        source.train.check(EpisodeShape(2, 1, 1))
    assert source.train.joined(source.validation, source.test).names == source.validation.names + source.test.names
    for option in ("val=0", "test=1", "val=x", "test=nan"):
        with pytest.raises(DataError, match="is not understood; write a number between 0 and 1"):
            load_source(f"images:{root}?{option}")
    with pytest.raises(DataError, match="seed=x is not understood; write a whole number"):
        load_source(f"images:{root}?seed=x")


def test_a_missing_split_folder_and_a_class_in_two_splits_are_refused(tmp_path: Path, class_folders: Make) -> None:
    class_folders(tmp_path / "zoo" / "train", {"ant": 2, "bee": 2})
    class_folders(tmp_path / "zoo" / "val", {"cat": 2})
    with pytest.raises(DataError, match="has a train folder but nothing for test; add"):
        load_source(f"images:{tmp_path / 'zoo'}")
    class_folders(tmp_path / "zoo" / "test", {"bee": 2})
    with pytest.raises(DataError, match="class 'bee' is in both the test and the train split"):
        load_source(f"images:{tmp_path / 'zoo'}")


def test_a_class_is_known_again_by_its_digests_whatever_its_name_size_and_split(
    tmp_path: Path, class_folders: Make
) -> None:
    root = class_folders(tmp_path / "zoo", SIX)
    before = digests(load_source(f"images:{root}"))
    (root / "ant").rename(root / "emmet")
    (root / "emmet" / "0.png").rename(root / "emmet" / "9.png")
    Image.new("RGB", (3, 3), (1, 2, 3)).save(root / "bee" / "new.png")
    after = digests(load_source(f"images:{root}?size=16&seed=4"))
    assert after["emmet"] == before["ant"]
    assert after["bee"].content != before["bee"].content
    assert {name: after[name] for name in ("cat", "dog", "eel", "fox")} == {
        name: before[name] for name in ("cat", "dog", "eel", "fox")
    }


def digests(source: DataSource) -> dict[str, ClassDigest]:
    return {**source.train.digests, **source.validation.digests, **source.test.digests}


def test_a_source_says_all_its_options_given_or_not(tmp_path: Path, class_folders: Make) -> None:
    root = class_folders(tmp_path / "zoo", SIX)
    options = load_source(f"images:{root}?size=8x9&seed=3&val=0.2").options
    given = {"size": "8x9", "seed": "3", "val": "0.2", "test": "0.2", "color": "auto", "order": "shuffled"}
    others = {"nested": "false", "domains": "none", "min_examples": "0", "skip_broken": "false"}
    assert options == {**given, **others}
    text = "&".join(f"{key}={value}" for key, value in options.items())
    assert load_source(f"images:{root}?{text}").options == options


def test_classes_can_be_left_out_of_a_split(tmp_path: Path, class_folders: Make) -> None:
    split = load_source(f"images:{class_folders(tmp_path / 'zoo', SIX)}").train
    kept = split.without(split.names[1:2])
    assert list(kept.names) == [split.names[0], *split.names[2:]]
    assert kept.digests == {name: split.digests[name] for name in kept.names}
    with pytest.raises(DataError, match="is empty"):
        split.without(split.names)


def test_files_that_become_readable_are_read(
    tmp_path: Path, class_folders: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HEIC photos become readable when their decoder is installed, so the cache must not hide them then."""
    root = class_folders(tmp_path / "zoo", SIX)
    for folder in root.iterdir():
        (folder / "0.png").rename(folder / "0.bmp")
    with monkeypatch.context() as lacking:
        lacking.setattr(images, "IMAGES", replace(images.IMAGES, extensions=lambda: frozenset({".png"})))
        before = load_source(f"images:{root}")
    after = load_source(f"images:{root}")
    assert [source.description[:9] for source in (before, after)] == ["12 images", "18 images"]
    assert after.notices == ()


def test_images_that_no_memory_can_hold_are_refused(
    tmp_path: Path, class_folders: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "empty", refuse)  # the system may promise memory that it does not have
    with pytest.raises(DataError, match=r"6 images of 99999 x 99999 pixels need 168 GiB of memory, .* smaller"):
        load_source(f"images:{class_folders(tmp_path / 'zoo', dict.fromkeys(SIX, 1))}?size=99999")
