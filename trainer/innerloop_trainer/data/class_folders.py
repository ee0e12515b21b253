"""Finds the classes in a tree of images or recordings, and the splits that they are divided into, if they are.

Two layouts are read: a folder for each class (`cat/`, `dog/`), and folders of splits with class folders in them
(`train/cat/`, `test/dog/`). Class folders may lie in further folders (`Greek/alpha/`), and may hold a folder for each
speaker (`seven/alice/`) where the user says so. All other layouts are refused, since a class that counts as two, or a
test class that counts as a training class, would silently falsify every figure.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

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

Folders = Mapping[PurePosixPath, Sequence[PurePosixPath]]
"""The files of each folder that has some: there are many files in few folders, so that rules look at folders."""

Homes = Mapping[PurePosixPath, PurePosixPath]
"""The class folder of the files of each folder."""

Classes = Mapping[str, Sequence[PurePosixPath]]
"""Files by class name, which is the class folder's path below the root or below the folder of its split."""


@dataclass(frozen=True)
class FileKind:
    """The files that a source reads.

    Attributes:
        source: name of the source.
        noun: what its files are called, in the plural.
        extensions: function that gives the ends of the names of such files, in lower case.
        formats: function that gives their formats, for messages.
        missing: function that gives ends of names that a fuller installation would read, and what it needs for that.
    """

    source: str
    noun: str
    extensions: Callable[[], frozenset[str]]
    formats: Callable[[], str]
    missing: Callable[[], Mapping[str, str]] = dict


@dataclass(frozen=True)
class ClassFolders:
    """The files of each class, and the splits.

    Attributes:
        splits: classes of each split that has a folder; if no split has one, all classes under the name "".
        notices: sentences about what was left out.
    """

    splits: Mapping[str, Classes]
    notices: Sequence[str]


def find_classes(
    kind: FileKind, tree: FileTree, *, nested: bool = False, skip_empty: bool = False, speakers: bool = False
) -> ClassFolders:
    """Find the classes, and the splits if the tree is divided by folders.

    If everything lies in a single folder, as often in archives, classes are looked for inside it.

    Args:
        kind: files to look for.
        tree: folder or archive to search.
        nested: whether folders of one name below different folders are different classes.
        skip_empty: whether folders that hold files but none of this kind are left out rather than refused.
        speakers: whether each class folder holds a folder for each of its speakers, with the files in it.

    Raises:
        DataError: there are no classes, or the layout is not one of those that are read.
    """
    found, others = _by_kind(kind, tree)
    if not found:
        said = _others_said(kind, others) if others else LAYOUTS
        raise DataError(f"{kind.source}: {tree.root} has no {kind.noun} ({kind.formats()}); {said}")
    if not skip_empty:
        _reject_folders_of_others(kind, tree, found, others)
    folders = _by_folder(found)
    homes = {folder: _class_folder(folder, speakers=speakers) for folder in folders}
    top = _top(homes)
    divided = _split_folders(kind, tree, top, folders, homes)
    splits: dict[str, Classes] = {
        split: _classes(kind, tree, top / folder, folders, homes) for folder, split in (divided or {"": ""}).items()
    }
    _reject_repeated(kind, tree, splits, nested=nested)
    _reject_bad_splits(kind, tree, splits, nested=nested)
    return ClassFolders(splits, [*_notices(kind, tree, found, others)])


def single_folder(kind: FileKind, tree: FileTree) -> ClassFolders | None:
    """Each file of this kind as a class of its own, if all of them lie in a single folder: they have no labels.

    Returns:
        the files by their paths; None if they lie in several folders, or there are none.
    """
    found, others = _by_kind(kind, tree)
    if len({path.parent for path in found}) != 1:
        return None
    return ClassFolders({"": {tree.shown(path): [path] for path in found}}, _notices(kind, tree, found, others))


def _by_kind(kind: FileKind, tree: FileTree) -> tuple[list[PurePosixPath], list[PurePosixPath]]:
    """The files of this kind, and all others."""
    extensions = kind.extensions()
    found: list[PurePosixPath] = []
    others: list[PurePosixPath] = []
    for path in tree.files:
        (found if path.suffix.lower() in extensions else others).append(path)
    return found, others


def _by_folder(files: Sequence[PurePosixPath]) -> Folders:
    """Files by the folder that they lie in, in their order."""
    folders = defaultdict[PurePosixPath, list[PurePosixPath]](list)
    for path in files:
        folders[path.parent].append(path)
    return folders


def _class_folder(folder: PurePosixPath, *, speakers: bool) -> PurePosixPath:
    """The class folder of the files of a folder; the root where they lie too high for that."""
    return folder.parent if speakers else folder


def _top(homes: Homes) -> PurePosixPath:
    """The deepest folder that all class folders lie in, and that is not a class folder itself."""
    top = PurePosixPath()
    while top not in homes:
        below = {folder.relative_to(top).parts[0] for folder in homes}
        deeper = top / min(below)
        if len(below) > 1 or any(home in (top, deeper) for home in homes.values()):
            return top
        top = deeper
    return top


def _split_folders(
    kind: FileKind, tree: FileTree, top: PurePosixPath, folders: Folders, homes: Homes
) -> dict[str, str]:
    """The split that each folder stands for; empty if folders are classes."""
    below = {folder.relative_to(top).parts[0] for folder in folders if folder != top}
    below |= {path.name for path in folders.get(top, ())}
    divided = {home.relative_to(top).parts[0] for home in homes.values() if len(home.relative_to(top).parts) > 1}
    found: dict[str, str] = {name: split for name in sorted(below) if (split := split_called(name)) is not None}
    if not divided & found.keys() and found.keys() != below:
        return {}  # "train" may be a class among other vehicles
    unclear = below - found.keys() or len(set(found.values())) < len(found) or "train" not in found.values()
    if found and unclear:
        raise DataError(
            f"{kind.source}: {tree.root} has the folders {', '.join(sorted(below))}, which are neither classes nor one "
            f"folder for each split; {LAYOUTS}"
        )
    return found


def split_called(folder: str) -> Split | None:
    """The split whose folder has this name."""
    word = re.sub(r"[-_ .]*(set|data|images)?$", "", folder.lower())
    return SPLIT_NAMES.get(word)


def _classes(kind: FileKind, tree: FileTree, root: PurePosixPath, folders: Folders, homes: Homes) -> Classes:
    """The files below `root` by class."""
    classes = defaultdict[str, list[PurePosixPath]](list)
    for folder, home in homes.items():
        if not folder.is_relative_to(root):
            continue
        if home == root or not home.is_relative_to(root):
            missing = "no class folder" if home == folder else "no folder of a speaker in a class folder"
            raise DataError(
                f"{kind.source}: {tree.root}: {tree.shown(folders[folder][0])} lies in {missing}; move it into that of "
                f"its class"
            )
        classes[tree.shown(home.relative_to(root))] += folders[folder]
    return classes


def _reject_repeated(kind: FileKind, tree: FileTree, splits: Mapping[str, Classes], *, nested: bool) -> None:
    """Refuse class folders that may be one class, and folders that may be a class or may hold classes."""
    for classes in splits.values():
        home: dict[str, str] = {}
        for name in classes:
            above, _, last = name.rpartition("/")
            if any(str(parent) in classes for parent in PurePosixPath(name).parents):
                raise DataError(
                    f"{kind.source}: {tree.root}: a folder above {name} has {kind.noun} of its own; {LAYOUTS}. Move "
                    f"its {kind.noun} into a folder beside the others"
                )
            if home.setdefault(last.casefold(), above) != above and not nested:
                raise DataError(
                    f"{kind.source}: {tree.root}: class {last!r} is in {home[last.casefold()] or '.'} and in "
                    f"{above or '.'}; {LAYOUTS}. If these are different classes, add ?nested=true"
                )


def _reject_folders_of_others(
    kind: FileKind, tree: FileTree, found: Sequence[PurePosixPath], others: Sequence[PurePosixPath]
) -> None:
    """Refuse folders that hold files but none of this kind; empty folders are passed over."""
    filled = _with_all_above(found)
    for path in others:
        if path.parent not in filled:
            there = [other for other in others if other.parent == path.parent]
            raise DataError(
                f"{kind.source}: {tree.root}: folder {tree.shown(path.parent)} has no {kind.noun} ({kind.formats()}): "
                f"{_others_said(kind, there)}; add {kind.noun}, remove it, or leave such folders out with "
                f"?min_examples=1"
            )


def _reject_bad_splits(kind: FileKind, tree: FileTree, splits: Mapping[str, Classes], *, nested: bool) -> None:
    """Refuse splits that share a class, and data whose splits do not include a test split."""
    if "" in splits:
        return
    home: dict[str, str] = {}
    for split, classes in splits.items():
        for name in classes:
            known = (name if nested else name.rpartition("/")[2]).casefold()
            if home.setdefault(known, split) != split:
                raise DataError(
                    f"{kind.source}: {tree.root}: class {name!r} is in both the {home[known]} and the {split} "
                    f"split, but few-shot learners are measured on classes they have never seen; give each split its "
                    f"own classes, or give the folder of one split as the source, whose classes are then divided"
                )
    if "test" not in splits:
        raise DataError(
            f"{kind.source}: {tree.root} has a train folder but nothing for test; add a test folder with other "
            f"classes, or give class folders only, which are then divided"
        )


def _notices(
    kind: FileKind, tree: FileTree, found: Sequence[PurePosixPath], others: Sequence[PurePosixPath]
) -> list[str]:
    notices = []
    if others:
        notices.append(f"{_others_said(kind, others)} of no format that is read, left out")
    filled = _with_all_above([*found, *others])
    empty = [folder for folder in tree.folders if folder not in filled]
    if empty:
        notices.append(f"{counted(len(empty), 'empty folder')} left out")
    return notices


def _with_all_above(files: Sequence[PurePosixPath]) -> set[PurePosixPath]:
    """The folders that hold some of the files, directly or further below."""
    folders = {path.parent for path in files}
    return {above for folder in folders for above in (folder, *folder.parents)}


def _others_said(kind: FileKind, others: Sequence[PurePosixPath]) -> str:
    """Describe how many files of each kind are not read, and what is needed to read them."""
    return count_kinds(others, {extension: f"to read them, {need}" for extension, need in kind.missing().items()})
