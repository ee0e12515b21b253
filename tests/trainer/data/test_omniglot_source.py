import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from innerloop_learner.inputs import normalise
from innerloop_trainer.data import ClassExamples, DataError, DataSource, EpisodeShape, load_source

SHAPE = EpisodeShape(2, 1, 2)


def names(source: DataSource) -> tuple[list[str], list[str], list[str]]:
    return list(source.train.names), list(source.validation.names), list(source.test.names)


def test_archives_and_folders_give_the_same_tasks(
    tmp_path: Path, omniglot_folders: Callable[[Path], Path], zipped: Callable[[Path], Path]
) -> None:
    folders = omniglot_folders(tmp_path / "folders")
    archives = tmp_path / "archives"
    archives.mkdir()
    for half in ("images_background", "images_evaluation"):
        zipped(folders / half).rename(archives / f"{half}.zip")
    first, second = load_source(f"omniglot:{folders}"), load_source(f"omniglot:{archives}")
    assert names(first) == names(second)
    for one, other in ((first.train, second.train), (first.test, second.test)):
        a, b = (sampler.sample(SHAPE, 3, torch.Generator().manual_seed(0)) for sampler in (one, other))
        assert torch.equal(a.support.x, b.support.x)
        assert torch.equal(a.query.x, b.query.x)


def test_splits_share_no_character_and_rotations_are_for_training_only(
    tmp_path: Path, omniglot_folders: Callable[[Path], Path]
) -> None:
    source = load_source(f"omniglot:{omniglot_folders(tmp_path)}")
    train, validation, test = names(source)
    assert (len(train), len(validation), len(test)) == (4 * 22, 2, 8)
    upright = {name.partition(" rotated")[0] for name in train}
    assert len(upright) == 22
    assert len(upright | set(validation) | set(test)) == 32
    assert not any("rotated" in name for name in validation + test)
    assert source.description.endswith(
        "22 training characters and their rotations by 90, 180 and 270 degrees, 2 for validation, 8 for test"
    )
    plain, _, _ = names(load_source(f"omniglot:{tmp_path}?rotations=false"))
    assert set(plain) == upright


def test_the_alphabet_split_tests_on_the_evaluation_alphabets_and_shares_none(
    tmp_path: Path, omniglot_folders: Callable[[Path], Path]
) -> None:
    source = load_source(f"omniglot:{omniglot_folders(tmp_path)}?split=alphabet&rotations=false")
    train, validation, test = ({name.partition("/")[0] for name in part} for part in names(source))
    assert test == {"Alphabet_Y", "Alphabet_Z"}
    assert len(validation) == 1
    assert train | validation == {f"Alphabet_{letter}" for letter in "ABCDEF"}
    assert not train & validation
    assert source.name == "omniglot:alphabet"


def test_paper_is_zero_and_ink_is_one_after_normalisation(
    tmp_path: Path, omniglot_folders: Callable[[Path], Path]
) -> None:
    source = load_source(f"omniglot:{omniglot_folders(tmp_path)}")
    assert normalise(source.input, torch.full((1, 28, 28), 255, dtype=torch.uint8)).eq(0).all()
    assert normalise(source.input, torch.zeros(1, 28, 28, dtype=torch.uint8)).eq(1).all()
    x = source.test.sample(SHAPE, 4, torch.Generator().manual_seed(0)).query.x
    assert 0.05 < x.mean() < 0.15  # a tenth of the fake drawings is ink


def test_a_missing_half_is_named(tmp_path: Path, omniglot_folders: Callable[[Path], Path]) -> None:
    root = omniglot_folders(tmp_path)
    (root / "images_evaluation").rename(root / "elsewhere")
    with pytest.raises(DataError, match=r"neither images_evaluation\.zip nor a folder images_evaluation"):
        load_source(f"omniglot:{root}")


def test_a_half_without_drawings_is_named(tmp_path: Path, omniglot_folders: Callable[[Path], Path]) -> None:
    root = omniglot_folders(tmp_path)
    (root / "images_evaluation").rename(root / "elsewhere")
    (root / "images_evaluation").mkdir()
    with pytest.raises(DataError, match=r"images_evaluation has no drawings; they lie at ALPHABET/characterNN"):
        load_source(f"omniglot:{root}")


def test_a_damaged_drawing_or_archive_is_named(
    tmp_path: Path, omniglot_folders: Callable[[Path], Path], zipped: Callable[[Path], Path]
) -> None:
    root = omniglot_folders(tmp_path)
    drawing = root / "images_background" / "Alphabet_B" / "character02" / "0001_02.png"
    drawing.write_bytes(drawing.read_bytes()[:70])
    with pytest.raises(DataError, match=r"images_background: Alphabet_B/character02/0001_02\.png is damaged"):
        load_source(f"omniglot:{root}")
    archive = zipped(root / "images_background")
    (root / "images_background").rename(root / "elsewhere")
    archive.write_bytes(archive.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"images_background\.zip is not a readable zip archive"):
        load_source(f"omniglot:{root}")


@pytest.mark.slow
def test_the_real_data_split_into_the_published_numbers_of_characters() -> None:
    default = Path(__file__).parents[4] / "shared" / "data" / "omniglot"
    root = Path(os.environ.get("INNERLOOP_OMNIGLOT", default))
    if not root.exists():
        pytest.skip("no Omniglot here; set INNERLOOP_OMNIGLOT to its folder")
    random = load_source(f"omniglot:{root}?rotations=false")
    assert [len(part) for part in names(random)] == [1100, 100, 423]
    train, validation, test = names(load_source(f"omniglot:{root}?split=alphabet&rotations=false"))
    assert len(train) + len(validation) == 964
    assert len(test) == 659
    assert len({name.partition("/")[0] for name in validation}) == 5
    assert set(train) | set(validation) | set(test) == set().union(*names(random))
    assert isinstance(random.train, ClassExamples)
    random.train.check(EpisodeShape(20, 5, 15))


def test_drawings_are_read_in_any_size(tmp_path: Path, omniglot_folders: Callable[[Path], Path]) -> None:
    folder = omniglot_folders(tmp_path)
    usual, larger = load_source(f"omniglot:{folder}"), load_source(f"omniglot:{folder}?size=32")
    assert (usual.input.shape, larger.input.shape) == ((1, 28, 28), (1, 32, 32))
    episodes = larger.test.sample(SHAPE, 1, torch.Generator().manual_seed(0))
    assert episodes.support.x.shape == (1, 2, 1, 32, 32)
    assert names(usual) == names(larger)
    with pytest.raises(DataError, match="at least 1"):
        load_source(f"omniglot:{folder}?size=0")
