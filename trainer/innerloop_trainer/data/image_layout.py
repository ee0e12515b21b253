"""Finds the classes in a tree of image files, and the splits that they are divided into, if they are.

Two layouts are read: a folder for each class (`cat/`, `dog/`), and folders of splits with class folders in them
(`train/cat/`, `test/dog/`). Class folders may lie in further folders (`Greek/alpha/`). All other layouts are refused,
since a class that counts as two, or a test class that counts as a training class, would silently falsify every figure.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from innerloop_learner.media import format_names, missing_extensions, readable_extensions
from innerloop_trainer.data.file_tree import FileTree
from innerloop_trainer.data.left_out import count_kinds, counted
from innerloop_trainer.data.source import DataError

Split = Literal["train", "validation", "test"]

SPLIT_NAMES: Mapping[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Names of the folders of splits, in lower case; `set`, `data` or `images` may follow, as in `train_set`."""

LAYOUTS = (
    "what is read is a folder for each class, or train, val and test folders (in any case; also training, valid, "
    "validation, dev, testing) with class folders in them"
)

Classes = Mapping[str, Sequence[PurePosixPath]]
"""Image files by class name, which is the class folder's path below the root or below the folder of its split."""


@dataclass(frozen=True)
class ImageLayout:
    """The image files of each class, and the splits.

    Attributes:
        splits: classes of each split that has a folder; if no split has one, all classes under the name "".
        notices: sentences about what was left out.
    """

    splits: Mapping[str, Classes]
    notices: Sequence[str]


def find_classes(tree: FileTree, *, nested: bool = False, skip_empty: bool = False) -> ImageLayout:
    """Find the classes, and the splits if the tree is divided by folders.

    If everything lies in a single folder, as often in archives, classes are looked for inside it.

    Args:
        tree: folder or archive to search.
        nested: whether folders of one name below different folders are different classes.
        skip_empty: whether folders that hold files but no images are left out rather than refused.

    Raises:
        DataError: there are no classes, or the layout is not one of those that are read.
    """
    images = [path for path in tree.files if path.suffix.lower() in readable_extensions()]
    others = [path for path in tree.files if path.suffix.lower() not in readable_extensions()]
    if not images:
        raise DataError(
            f"images: {tree.root} has no images ({format_names()}); {_others_said(others) if others else LAYOUTS}"
        )
    if not skip_empty:
        _reject_folders_of_others(tree, images, others)
    top = _top(images)
    folders = _split_folders(tree, top, images)
    splits: dict[str, Classes] = {
        split: _classes(tree, top / folder, images) for folder, split in (folders or {"": ""}).items()
    }
    _reject_repeated(tree, splits, nested=nested)
    _reject_bad_splits(tree, splits, nested=nested)
    return ImageLayout(splits, [*_notices(tree, images, others)])


def _top(images: Sequence[PurePosixPath]) -> PurePosixPath:
    """The deepest folder that all class folders lie in, and that is not a class folder itself."""
    top = PurePosixPath()
    while True:
        below = {path.relative_to(top).parts[0] for path in images}
        deeper = top / min(below)
        if len(below) > 1 or any(path.parent in (top, deeper) for path in images):
            return top
        top = deeper


def _split_folders(tree: FileTree, top: PurePosixPath, images: Sequence[PurePosixPath]) -> dict[str, str]:
    """The split that each folder stands for; empty if folders are classes."""
    below = {path.relative_to(top).parts[0] for path in images}
    divided = {path.relative_to(top).parts[0] for path in images if len(path.relative_to(top).parts) > 2}
    found: dict[str, str] = {name: split for name in sorted(below) if (split := _split_called(name)) is not None}
    if not divided & found.keys() and found.keys() != below:
        return {}  # "train" may be a class among other vehicles
    unclear = below - found.keys() or len(set(found.values())) < len(found) or "train" not in found.values()
    if found and unclear:
        raise DataError(
            f"images: {tree.root} has the folders {', '.join(sorted(below))}, which are neither classes nor one folder "
            f"for each split; {LAYOUTS}"
        )
    return found


def _split_called(folder: str) -> Split | None:
    """The split whose folder has this name."""
    word = re.sub(r"[-_ .]*(set|data|images)?$", "", folder.lower())
    return SPLIT_NAMES.get(word)


def _classes(tree: FileTree, root: PurePosixPath, images: Iterable[PurePosixPath]) -> Classes:
    """The images below `root` by class."""
    classes = defaultdict[str, list[PurePosixPath]](list)
    for path in images:
        if not path.is_relative_to(root):
            continue
        if path.parent == root:
            raise DataError(
                f"images: {tree.root}: {tree.shown(path)} lies in no class folder; move it into that of its class"
            )
        classes[tree.shown(path.parent.relative_to(root))].append(path)
    return classes


def _reject_repeated(tree: FileTree, splits: Mapping[str, Classes], *, nested: bool) -> None:
    """Refuse class folders that may be one class, and folders that may be a class or may hold classes."""
    for classes in splits.values():
        home: dict[str, str] = {}
        for name in classes:
            above, _, last = name.rpartition("/")
            if any(str(parent) in classes for parent in PurePosixPath(name).parents):
                raise DataError(
                    f"images: {tree.root}: a folder above {name} has images of its own; {LAYOUTS}. Move its images "
                    f"into a folder beside the others"
                )
            if home.setdefault(last.casefold(), above) != above and not nested:
                raise DataError(
                    f"images: {tree.root}: class {last!r} is in {home[last.casefold()] or '.'} and in {above or '.'}; "
                    f"{LAYOUTS}. If these are different classes, add ?nested=true"
                )


def _reject_folders_of_others(tree: FileTree, images: Sequence[PurePosixPath], others: Sequence[PurePosixPath]) -> None:
    """Refuse folders that hold files but no images; empty folders are passed over."""
    filled = {folder for path in images for folder in path.parents}
    for path in others:
        if path.parent not in filled:
            there = [other for other in others if other.parent == path.parent]
            raise DataError(
                f"images: {tree.root}: folder {tree.shown(path.parent)} has no images ({format_names()}): "
                f"{_others_said(there)}; add images, remove it, or leave such folders out with ?min_examples=1"
            )


def _reject_bad_splits(tree: FileTree, splits: Mapping[str, Classes], *, nested: bool) -> None:
    """Refuse splits that share a class, and data whose splits do not include a test split."""
    if "" in splits:
        return
    home: dict[str, str] = {}
    for split, classes in splits.items():
        for name in classes:
            known = (name if nested else name.rpartition("/")[2]).casefold()
            if home.setdefault(known, split) != split:
                raise DataError(
                    f"images: {tree.root}: class {name!r} is in both the {home[known]} and the {split} "
                    f"split, but few-shot learners are measured on classes they have never seen; give each split its "
                    f"own classes, or give the folder of one split as the source, whose classes are then divided"
                )
    if "test" not in splits:
        raise DataError(
            f"images: {tree.root} has a train folder but nothing for test; add a test folder with other classes, or "
            f"give class folders only, which are then divided"
        )


def _notices(tree: FileTree, images: Sequence[PurePosixPath], others: Sequence[PurePosixPath]) -> list[str]:
    notices = []
    if others:
        notices.append(f"{_others_said(others)} of no format that is read, left out")
    filled = {folder for path in (*images, *others) for folder in path.parents}
    empty = [folder for folder in tree.folders if folder not in filled]
    if empty:
        notices.append(f"{counted(len(empty), 'empty folder')} left out")
    return notices


def _others_said(others: Sequence[PurePosixPath]) -> str:
    """Describe how many files of each kind are not read, and what is needed to read them."""
    return count_kinds(others, {kind: f"to read them, {need}" for kind, need in missing_extensions().items()})
