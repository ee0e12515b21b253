import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    home = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home


@pytest.fixture
def zipped() -> Callable[[Path], Path]:
    """Packs a folder as a zip archive beside it, the folder's own name on top, and returns the archive."""

    def pack(folder: Path) -> Path:
        archive = folder.with_name(f"{folder.name}.zip")
        with zipfile.ZipFile(archive, "w") as file:
            for path in sorted(folder.rglob("*")):
                file.write(path, path.relative_to(folder.parent))
        return archive

    return pack


@pytest.fixture
def class_folders() -> Callable[..., Path]:
    """Makes folders of images: `class_folders(root, {"cat": 3})`; the classes differ in brightness."""

    def make(root: Path, classes: dict[str, int], *, mode: str = "RGB", size: tuple[int, int] = (12, 9)) -> Path:
        for position, (name, count) in enumerate(classes.items()):
            (root / name).mkdir(parents=True)
            for index in range(count):
                color = (20 + 10 * position, 10 * index, 5) if mode == "RGB" else 20 + 10 * position
                image = Image.new(mode, size, color)
                image.paste(0, (0, 0, 2, 2 + index))
                image.save(root / name / f"{index}.png")
        return root

    return make


@pytest.fixture
def omniglot_folders() -> Callable[[Path], Path]:
    """Makes a small Omniglot: 6 background and 2 evaluation alphabets of 4 characters with 3 drawings each."""

    def make(root: Path) -> Path:
        random = np.random.default_rng(0)
        for half, alphabets in (("images_background", "ABCDEF"), ("images_evaluation", "YZ")):
            for alphabet in alphabets:
                for character in range(1, 5):
                    folder = root / half / f"Alphabet_{alphabet}" / f"character{character:02}"
                    folder.mkdir(parents=True)
                    paper = random.random((105, 105)) > 0.1
                    for drawing in range(1, 4):
                        Image.fromarray(np.roll(paper, drawing, axis=0)).save(folder / f"0001_{drawing:02}.png")
        return root

    return make
