from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from innerloop_trainer.data import DataError, load_source, sources
from innerloop_trainer.data.load import parse_request


@pytest.mark.parametrize(
    ("text", "name", "path", "options"),
    [
        ("glyphs", "glyphs", "", {}),
        ("omniglot:/data/omniglot", "omniglot", "/data/omniglot", {}),
        ("images:a b/c.zip?size=28&color=gray", "images", "a b/c.zip", {"size": "28", "color": "gray"}),
        ("images:host:dir?", "images", "host:dir", {}),
        ("digits?a=b=c", "digits", "", {"a": "b=c"}),
    ],
)
def test_a_source_text_is_name_path_and_options(text: str, name: str, path: str, options: dict[str, str]) -> None:
    request = parse_request(text, torch.device("cpu"))
    assert (request.name, request.path, request.options) == (name, path, options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "omniglut:/data",
            r"unknown data source 'omniglut'; there are: audio, cifar-fs, cub, digits, .*images, .*omniglot, packed, ",
        ),
        ("cifar-fs", r"cifar-fs needs a path, for example cifar-fs:~/data/cifar100\.zip"),
        ("cub:.?crop=true", r"cub: unknown option 'crop'; it has: size"),
        ("", r"unknown data source ''"),
        ("glyphs?fast", r"write options as key=value, joined by &, not 'fast'"),
        ("glyphs?size=3", r"glyphs: unknown option 'size'; it has: domains"),
        ("sinusoid?size=3", r"sinusoid: unknown option 'size'; it has none"),
        ("sinusoid:/data", r"sinusoid is built in and takes no path"),
        ("digits:/data", r"digits is built in and takes no path"),
        ("omniglot", r"omniglot needs a path, for example omniglot:~/data/omniglot"),
        ("images:", r"images needs a path, for example images:~/pictures"),
        ("images:/no/such/place", r"/no/such/place does not exist; give the path of the data"),
        ("omniglot:.?rotation=true", r"unknown option 'rotation'; it has: split, size, rotations"),
        ("omniglot:.?split=mine", r"split=mine is not understood; write one of: random, alphabet"),
        ("omniglot:.?rotations=yes", r"rotations=yes is not understood; write true or false"),
        ("images:.?size=big", r"size=big is not understood; write a number of pixels or HEIGHTxWIDTH"),
        ("images:.?size=0", r"size=0 is not understood"),
        ("images:.?color=red", r"color=red is not understood; write one of: auto, gray, rgb"),
    ],
)
def test_a_text_that_names_no_source_is_refused_with_what_to_write(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_source(text)


def test_a_tilde_is_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, class_folders: Callable[..., Path]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    class_folders(tmp_path / "pictures", {"a": 1, "b": 1, "c": 1})
    assert load_source("images:~/pictures").name == "images:pictures"


def test_a_tilde_of_nobody_is_a_path_that_does_not_exist() -> None:
    with pytest.raises(DataError, match="~no-such-user/pictures does not exist"):
        load_source("images:~no-such-user/pictures")


def test_every_issue_listed_source_is_registered() -> None:
    assert {"digits", "glyphs", "images", "omniglot", "sinusoid"} <= set(sources)
    assert {"cifar-fs", "mini-imagenet", "tiered-imagenet", "fc100", "cub"} <= set(sources)


def test_a_path_without_the_name_of_a_source_is_answered_with_what_to_write(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "intents.csv").write_text("text,label")
    with pytest.raises(DataError, match=r"write images:.*parts"):
        load_source(str(tmp_path / "parts"))
    with pytest.raises(DataError, match=r"write texts:.*intents\.csv"):
        load_source(f"{tmp_path}/intents.csv?label=team")
    with pytest.raises(DataError, match="a table is read by texts:"):
        load_source(f"images:{tmp_path}/intents.csv")
