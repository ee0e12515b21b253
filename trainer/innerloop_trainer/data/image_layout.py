"""Finds the classes in a tree of image files."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from innerloop_trainer.data.file_tree import FileTree
from innerloop_trainer.data.source import DataError

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
SPLIT_FOLDERS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}

Classes = Mapping[str, Sequence[PurePosixPath]]
"""Image files by class name, which is the folder's path below the root or the split's folder."""


def find_splits(tree: FileTree) -> dict[str, Classes]:
    """The classes of each split if the tree is divided by folders, those of the one split "" otherwise.

    A single folder that everything lies in, as archives tend to have, is passed through.

    Raises:
        DataError: there are no classes, an image lies outside of any, a folder has no images, a split is missing, or a
            class is in two splits.
    """
    images = [path for path in tree.files if path.suffix.lower() in EXTENSIONS]
    if not images:
        raise DataError(f"images: {tree.root} has no images ({', '.join(EXTENSIONS)}); give a folder of class folders")
    _reject_empty_folders(tree, images)
    top = _top(images)
    below = {path.relative_to(top).parts[0] for path in images}
    if "train" not in below or not below <= set(SPLIT_FOLDERS):
        return {"": _classes(tree, top, images)}
    splits: dict[str, Classes] = {}
    for folder in sorted(below):
        root = top / folder
        splits[SPLIT_FOLDERS[folder]] = _classes(tree, root, [path for path in images if path.is_relative_to(root)])
    _reject_bad_splits(tree, splits)
    return splits


def _top(images: Sequence[PurePosixPath]) -> PurePosixPath:
    """The deepest folder that all class folders lie in, and that is none itself."""
    top = PurePosixPath()
    while True:
        below = {path.relative_to(top).parts[0] for path in images}
        deeper = top / min(below)
        if len(below) > 1 or any(path.parent in (top, deeper) for path in images):
            return top
        top = deeper


def _classes(tree: FileTree, root: PurePosixPath, images: Sequence[PurePosixPath]) -> Classes:
    classes = defaultdict[str, list[PurePosixPath]](list)
    for path in images:
        if path.parent == root:
            raise DataError(f"images: {tree.root}: {path} lies in no class folder; move it into that of its class")
        classes[str(path.parent.relative_to(root))].append(path)
    return classes


def _reject_empty_folders(tree: FileTree, images: Sequence[PurePosixPath]) -> None:
    filled = {folder for path in images for folder in path.parents}
    for folder in tree.folders:
        if folder not in filled:
            raise DataError(
                f"images: {tree.root}: folder {folder} has no images ({', '.join(EXTENSIONS)}); add some or remove it"
            )


def _reject_bad_splits(tree: FileTree, splits: Mapping[str, Classes]) -> None:
    missing = {"train", "validation", "test"} - set(splits)
    if missing:
        raise DataError(
            f"images: {tree.root} has a train folder but nothing for {' and '.join(sorted(missing))}; give it train/, "
            f"val/ and test/, or class folders only, which are then split"
        )
    for name, first, second in _shared(splits):
        raise DataError(
            f"images: {tree.root}: class {name!r} is in both the {first} and the {second} split, but few-shot "
            f"learners are measured on classes they have never seen; give each split its own, or class folders only"
        )


def _shared(splits: Mapping[str, Classes]) -> Iterator[tuple[str, str, str]]:
    home: dict[str, str] = {}
    for split, classes in splits.items():
        for name in classes:
            if name in home:
                yield name, home[name], split
            home[name] = split
