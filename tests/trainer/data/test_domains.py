"""Classes with domains: episodes of one each, and the sources that say what a domain is."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from innerloop_learner.spec import InputSpec
from innerloop_trainer.data import ClassExamples, DataError, EpisodeShape, load_source, read_augmentations
from innerloop_trainer.data import glyphs as glyphs_module
from innerloop_trainer.data.augmented import AugmentedTasks
from innerloop_trainer.data.class_digests import digest_arrays
from innerloop_trainer.data.example_set import ExampleSet
from innerloop_trainer.data.glyph_shapes import distinct_characters

SHAPE = EpisodeShape(2, 1, 1)
DOMAINS = ("greek", "latin", "greek", "runes", "latin", "latin", "greek", "signs", "signs")


def examples() -> ExampleSet:
    counts = np.full(len(DOMAINS), 3)
    images = np.arange(3 * len(DOMAINS), dtype=np.uint8).reshape(-1, 1, 1, 1)
    names = tuple(f"class {index}" for index in range(len(DOMAINS)))
    return ExampleSet(names, counts, images, digest_arrays(counts, images), domains=DOMAINS)


def split(data: ExampleSet) -> ClassExamples:
    return ClassExamples("toy, test split", data, InputSpec((1, 1, 1), dtype="uint8"), torch.device("cpu"))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("ways", "suited"), [(2, ["greek", "latin", "signs"]), (3, ["greek", "latin"])])
def test_episodes_are_of_one_domain_and_domains_come_in_turn(ways: int, suited: list[str]) -> None:
    sampler, drawn = split(examples()), set()
    assert sampler.domains(EpisodeShape(ways, 1, 1)) == suited
    for seed in range(20):
        episodes = sampler.sample(EpisodeShape(ways, 1, 2), 2 * len(suited), seeded(seed))
        assert episodes.classes is not None
        assert episodes.domains is not None
        found = [{DOMAINS[each] for each in classes} for classes in episodes.classes.tolist()]
        assert all(len(each) == 1 for each in found)
        assert all(len({*classes}) == ways for classes in episodes.classes.tolist())
        assert Counter(name for each in found for name in each) == dict.fromkeys(suited, 2)
        assert len({*episodes.domains[: len(suited)].tolist()}) == len(suited)
        numbers = {(number, *names) for number, names in zip(episodes.domains.tolist(), found, strict=True)}
        assert len(numbers) == len(suited)
        drawn |= {tuple(sorted(classes)) for classes in episodes.classes.tolist()}
    assert len(drawn) == (3 + 3 + 1 if ways == 2 else 2)


def test_no_domain_with_enough_classes_is_told() -> None:
    with pytest.raises(DataError, match=r"no domain has 4 classes .* at most 3; lower --ways or --train-ways to 3"):
        split(examples()).check(EpisodeShape(4, 1, 1))


def test_without_domains_nothing_is_of_one() -> None:
    sampler = split(replace(examples(), domains=None))
    assert sampler.sample(SHAPE, 3, seeded(0)).domains is None
    assert not sampler.domains(SHAPE)
    assert sampler.ways_anywhere == len(DOMAINS)
    assert split(examples()).ways_anywhere == 1


def test_classes_keep_their_domains_in_other_sets() -> None:
    data = examples()
    assert data.select(["class 3", "class 0"]).domains == ("runes", "greek")
    rotated = data.with_rotations()
    assert rotated.domains is not None
    assert rotated.domains[len(DOMAINS)] == "greek rotated by 90"
    assert len(set(rotated.domains)) == 16
    first, second = data.select(["class 0", "class 1"]), data.select(["class 7"])
    assert first.joined(second).domains == ("greek", "latin", "signs")
    assert split(data).without(["class 7"]).domains(SHAPE) == ["greek", "latin"]
    augmented = AugmentedTasks(split(data), read_augmentations("none"))
    assert augmented.domains(SHAPE) == ["greek", "latin", "signs"]
    assert augmented.ways_anywhere == 1
    assert augmented.sample(SHAPE, 3, seeded(0)).domains is not None


def test_alphabets_are_domains_and_rotated_ones_further_ones(
    tmp_path: Path, omniglot_folders: Callable[[Path], Path]
) -> None:
    source = load_source(f"omniglot:{omniglot_folders(tmp_path)}?split=alphabet&domains=alphabet")
    assert len(source.train.domains(SHAPE)) == 5 * 4
    assert source.test.domains(SHAPE) == ["Alphabet_Y", "Alphabet_Z"]
    assert source.options["domains"] == "alphabet"


def test_folders_of_class_folders_are_domains_which_are_divided_whole(
    tmp_path: Path, class_folders: Callable[..., Path]
) -> None:
    classes = {f"{place}/{kind}": 2 for place in ("air", "land", "sea", "wood", "zoo") for kind in ("ant", "bee")}
    root = class_folders(tmp_path / "animals", classes)
    source = load_source(f"images:{root}?domains=folder&test=0.2&val=0.2")
    parts = [part.domains(SHAPE) for part in (source.train, source.validation, source.test)]
    assert [len(part) for part in parts] == [3, 1, 1]
    assert sorted(name for part in parts for name in part) == ["air", "land", "sea", "wood", "zoo"]
    assert "split by domain with seed 0 (of 3, 1, 1 domains): 6 classes for training" in source.description
    with pytest.raises(DataError, match=r"class 'air' lies in no folder of a domain; .* or leave \?domains= out"):
        load_source(f"images:{class_folders(tmp_path / 'flat', {'air': 1, 'sea': 1})}?domains=folder")


def test_folders_of_splits_keep_their_domains(tmp_path: Path, class_folders: Callable[..., Path]) -> None:
    for name, place in (("train", "air"), ("train", "land"), ("val", "sea"), ("test", "wood")):
        class_folders(tmp_path / "zoo" / name / place, {"ant": 2, "bee": 2})
    source = load_source(f"images:{tmp_path / 'zoo'}?domains=folder")
    assert source.train.domains(SHAPE) == ["air", "land"]
    assert source.test.domains(SHAPE) == ["wood"]


def test_a_column_of_a_table_names_domains(tmp_path: Path) -> None:
    file = tmp_path / "teams.csv"
    rows = [
        f"{shop} {team} {number},{team},{shop}"
        for shop in "abcde"
        for team in ("cards", "loans")
        for number in range(3)
    ]
    file.write_text("text,label,shop\n" + "\n".join(rows) + "\n")
    source = load_source(f"texts:{file}?domains=Shop&test=0.2&val=0.2")
    assert [len(part.domains(SHAPE)) for part in (source.train, source.validation, source.test)] == [3, 1, 1]
    names = {name for part in (source.train, source.validation, source.test) for name in part.names}
    assert names == {f"{shop}/{team}" for shop in "abcde" for team in ("cards", "loans")}
    with pytest.raises(DataError, match="'label' names domains, and no texts or labels too"):
        load_source(f"texts:{file}?domains=label")
    file.write_text("text,label,shop\nHello,cards,\n")
    with pytest.raises(DataError, match="line 2 has no domain"):
        load_source(f"texts:{file}?domains=shop")


def test_rotations_of_digits_are_domains_of_which_some_are_unseen() -> None:
    source, plain = load_source("digits?domains=rotation"), load_source("digits")
    assert source.train.domains(SHAPE) == ["0 degrees", "15 degrees", "30 degrees", "45 degrees"]
    assert source.validation.domains(SHAPE) == ["60 degrees"]
    assert source.test.domains(SHAPE) == ["75 degrees", "90 degrees"]
    upright = {name.partition(" ")[0]: digest for name, digest in source.train.digests.items() if " at 0 " in name}
    assert upright == plain.train.digests


def test_fonts_are_domains_of_which_some_are_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    few = distinct_characters()[:30]
    monkeypatch.setattr(glyphs_module, "distinct_characters", lambda: few)
    source = load_source("glyphs?domains=font")
    parts = (source.train, source.validation, source.test)
    assert [sorted(part.domains(SHAPE)) for part in parts] == [sorted(each) for each in glyphs_module.FONTS.values()]
    characters = [{name.partition(" in ")[0] for name in part.names} for part in parts]
    assert sum(map(len, characters)) == len(set().union(*characters)) == 30
    source.train.check(EpisodeShape(5, 5, 15))
