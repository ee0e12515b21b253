"""A pack gives what its source gives, to the bit, and is whole or not there."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from innerloop_learner.augmentations import Augment
from innerloop_trainer.data import ClassExamples, DataError, DataSource, EpisodeShape, load_source, pack, row_files
from innerloop_trainer.data import packing as packing_module
from innerloop_trainer.data.class_examples import RawEpisodes
from innerloop_trainer.data.pack_index import INDEX
from innerloop_trainer.data.row_files import MappedRows

SPLITS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several files of rows even where there is little."""
    monkeypatch.setattr(row_files, "FILE_BYTES", 2000)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Colour photographs of many sizes: ten classes of 5 to 8."""
    random = np.random.default_rng(0)
    for number in range(10):
        folder = tmp_path / "photos" / f"kind {number}"
        folder.mkdir(parents=True)
        for index in range(5 + number % 4):
            height, width = random.integers(8, 40, 2)
            pixels = random.integers(0, 256, (height, width, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.jpg")
    return tmp_path / "photos"


@pytest.fixture
def gray(tmp_path: Path) -> Path:
    """Gray drawings saved in colour, in folders of domains."""
    random = np.random.default_rng(1)
    for number in range(12):
        folder = tmp_path / "drawings" / f"domain {number % 3}" / f"class {number}"
        folder.mkdir(parents=True)
        for index in range(4):
            Image.fromarray(random.integers(0, 256, (9, 7), np.uint8)).convert("RGB").save(folder / f"{index}.png")
    return tmp_path / "drawings"


def drawn(source: DataSource, split: str, shape: EpisodeShape) -> RawEpisodes:
    """Episodes of one seed."""
    sampler = getattr(source, split)
    assert isinstance(sampler, ClassExamples)
    return sampler.sample_raw(shape, 7, torch.Generator().manual_seed(3))


def same(ours: DataSource, theirs: DataSource, shape: EpisodeShape) -> None:
    """Check that two sources are one."""
    assert (ours.input, ours.options, ours.name) == (theirs.input, theirs.options, theirs.name)
    for split in SPLITS:
        one, other = getattr(ours, split), getattr(theirs, split)
        assert (one.names, one.digests) == (other.names, other.digests)
        for field in ("support", "support_labels", "query", "query_labels", "classes"):
            a, b = getattr(drawn(ours, split, shape), field), getattr(drawn(theirs, split, shape), field)
            assert a.dtype == b.dtype
            assert torch.equal(a, b), (split, field)


@pytest.mark.parametrize(
    "options",
    ["size=12&val=0.2", "size=12x9&color=gray&order=name&val=0.2", "size=8&min_examples=6&val=0.3&test=0.3"],
)
def test_episodes_classes_and_digests_are_those_of_the_source_to_the_bit(photos: Path, options: str) -> None:
    text = f"images:{photos}?{options}"
    packed = pack(text, photos.with_name("shards"))
    shape = EpisodeShape(ways=2, shots=1, queries=3, wrong_labels=0.5)
    source = load_source(text)
    same(load_source(f"packed:{photos.with_name('shards')}"), source, shape)
    assert packed.examples == sum(len(getattr(source, split).data.examples) for split in SPLITS)
    assert packed.bytes == sum(file.stat().st_size for file in photos.with_name("shards").iterdir())


def test_colourless_images_are_packed_gray_and_domains_are_kept(gray: Path) -> None:
    text = f"images:{gray}?size=6&domains=folder&val=0.3&test=0.3"
    pack(text, gray.with_name("shards"))
    packed = load_source(f"packed:{gray.with_name('shards')}")
    assert packed.input.shape == (1, 6, 6)
    shape = EpisodeShape(ways=2, shots=1, queries=1)
    assert packed.train.domains(shape) == load_source(text).train.domains(shape)
    same(packed, load_source(text), shape)


def test_a_source_in_memory_is_packed_too_with_its_rotated_classes(
    tmp_path: Path, omniglot_folders: Callable[[Path], Path]
) -> None:
    text = f"omniglot:{omniglot_folders(tmp_path / 'omniglot')}?split=alphabet"
    pack(text, tmp_path / "shards")
    same(load_source(f"packed:{tmp_path / 'shards'}"), load_source(text), EpisodeShape(ways=3, shots=1, queries=1))


def test_what_is_made_of_a_split_is_the_same(photos: Path) -> None:
    text = f"images:{photos}?size=8"
    pack(text, photos.with_name("shards"))
    ours, theirs = load_source(f"packed:{photos.with_name('shards')}"), load_source(text)
    shape = EpisodeShape(ways=3, shots=1, queries=2)
    left_out = theirs.train.names[1:3]
    every = [source.train.without(left_out).joined(source.validation, source.test) for source in (ours, theirs)]
    unlabelled = [source.train.without_labels(Augment([])) for source in (ours, theirs)]
    for one, other in (every, unlabelled):
        a, b = (each.sample(shape, 5, torch.Generator().manual_seed(0)) for each in (one, other))
        assert torch.equal(a.support.x, b.support.x)
        assert torch.equal(a.query.x, b.query.x)
    assert isinstance(every[0], ClassExamples)
    assert isinstance(every[0].data.examples, MappedRows), "it stays on disk"


def test_examples_are_decoded_to_disk_and_never_cached(photos: Path, cache_home: Path) -> None:
    pack(f"images:{photos}?size=8", photos.with_name("shards"))
    assert not (cache_home / "innerloop").exists()
    assert sorted(path.name for path in photos.parent.iterdir()) == ["photos", "shards"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("where", ["load_source", "_write_split", "describe_examples"])
def test_nothing_is_left_of_a_pack_that_was_interrupted(
    photos: Path, where: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = getattr(packing_module, where)

    def interrupted(*arguments: object, **options: object) -> None:
        whole(*arguments, **options)
        raise error

    monkeypatch.setattr(packing_module, where, interrupted)
    with pytest.raises(error):
        pack(f"images:{photos}?size=8", photos.with_name("shards"))
    assert [path.name for path in photos.parent.iterdir()] == ["photos"]


def test_a_folder_that_holds_something_is_never_written_to(photos: Path) -> None:
    with pytest.raises(DataError, match="is there already"):
        pack(f"images:{photos}", photos)
    pack(f"images:{photos}?size=8", photos.with_name("shards"))
    before = {path: path.read_bytes() for path in photos.with_name("shards").iterdir()}
    with pytest.raises(DataError, match="name another folder"):
        pack(f"images:{photos}?size=9", photos.with_name("shards"))
    assert {path: path.read_bytes() for path in photos.with_name("shards").iterdir()} == before
    photos.with_name("empty").mkdir()
    pack(f"images:{photos}?size=8", photos.with_name("empty"))


@pytest.mark.parametrize(("text", "message"), [("sinusoid", "no examples that are kept"), ("nothing", "unknown")])
def test_what_cannot_be_packed_is_refused_and_leaves_nothing(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        pack(text, tmp_path / "shards")
    assert not list(tmp_path.iterdir())


def test_broken_packs_are_refused_with_what_to_do(photos: Path) -> None:
    folder = photos.with_name("shards")
    pack(f"images:{photos}?size=8", folder)

    def refused(message: str) -> None:
        with pytest.raises(DataError, match=message):
            load_source(f"packed:{folder}")

    index, rows = folder / INDEX, folder / "train-00000.npy"
    content, data = index.read_text(), rows.read_bytes()
    rows.write_bytes(data[:-1])
    refused("train-00000.npy is damaged: it was cut off")
    rows.write_bytes(data + b"x")
    refused("something was written behind its end")
    rows.write_bytes(b"")
    refused("train-00000.npy is damaged")
    np.save(rows, np.zeros((1, 3, 8, 8), np.float32))
    refused("it has float32 of shape")
    rows.unlink()
    refused("train-00000.npy can't be read")
    rows.write_bytes(data)
    for damaged, message in (
        (content[: len(content) // 2], "index.json is damaged"),
        ("[]", "is not the index of a pack"),
        (json.dumps({**json.loads(content), "version": 2}), "a pack of version 2, and 1 is read"),
        (json.dumps({**json.loads(content), "colour": 2}), "damaged"),
        (json.dumps({**json.loads(content), "splits": {}}), "damaged"),
    ):
        index.write_text(damaged)
        refused(message)
    broken = json.loads(content)
    broken["splits"]["train"]["classes"][0]["examples"] += 1
    index.write_text(json.dumps(broken))
    refused("other numbers of examples")
    index.unlink()
    refused("is no pack: it has no index.json")
    index.write_text(content)
    load_source(f"packed:{folder}")


def test_files_of_an_index_lie_in_the_folder_of_the_pack_alone(photos: Path) -> None:
    folder = photos.with_name("shards")
    pack(f"images:{photos}?size=8", folder)
    (folder / "train-00000.npy").rename(photos.parent / "train-00000.npy")
    index = folder / INDEX
    index.write_text(index.read_text().replace('"train-00000.npy"', '"../train-00000.npy"'))
    with pytest.raises(DataError, match=r"shards/train-00000\.npy can't be read"):
        load_source(f"packed:{folder}")


def test_the_folder_of_a_pack_that_is_named_alone_says_what_to_write(photos: Path) -> None:
    folder = photos.with_name("shards")
    pack(f"images:{photos}?size=8", folder)
    with pytest.raises(DataError, match=f"write packed:{folder}"):
        load_source(str(folder))


def test_much_that_is_read_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files, "MAPPED_BYTES", 2**20)
    monkeypatch.setattr(row_files, "FILE_BYTES", 2**20)
    writer = row_files.RowWriter(tmp_path, "rows", (4096,), np.dtype(np.uint8))
    for start in range(0, 1000, 100):
        writer.append(np.arange(start, start + 100).astype(np.uint8)[:, None].repeat(4096, 1))
    files = writer.finish()
    assert [file.rows for file in files] == [256, 256, 256, 232]
    rows = MappedRows.of_files(files, (4096,), np.dtype(np.uint8))

    def resident() -> int:
        """Memory in KB that maps the files, 4,000 KB if all of it does."""
        parts = Path("/proc/self/smaps").read_text().split(str(tmp_path))[1:]
        return sum(int(part.split("Rss:")[1].split()[0]) for part in parts)

    if not Path("/proc/self/smaps").exists():
        pytest.skip("no /proc/self/smaps here")
    for which in np.random.default_rng(0).integers(0, 1000, (100, 10)):
        np.testing.assert_array_equal(rows[which][:, 7], which.astype(np.uint8))
        assert resident() <= 2000
