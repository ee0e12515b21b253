"""`cifar-fs:PATH`, `mini-imagenet:PATH`, `tiered-imagenet:PATH`, `fc100:PATH`, `cub:PATH`: photos, split as in papers.

PATH is a folder, or a zip or tar archive of one, laid out in one of the ways in which these data sets are passed on.
All are read from folders train, val and test with class folders in them. Where there are none, the class folders of the
original archive are divided by the lists beside them or as the paper says, by the functions `by_...` below. Pickle
files are never read, since unpickling runs code that is in them.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath, PurePosixPath
from typing import ClassVar

from innerloop_learner.encoders import EncoderSpec
from innerloop_learner.media import format_names, readable_extensions
from innerloop_trainer.data.class_examples import source_of_classes
from innerloop_trainer.data.class_folders import Classes, Split, split_called
from innerloop_trainer.data.class_split import describe_split
from innerloop_trainer.data.file_tree import ARCHIVES, FileTree, UnreadableFileError, open_tree
from innerloop_trainer.data.images import input_of, read_images
from innerloop_trainer.data.left_out import Broken, count_kinds, counted
from innerloop_trainer.data.options import SIZE, existing_path, option, read_options, write_options
from innerloop_trainer.data.source import DataError, DataSource, SourceLoader, SourceRequest, sources
from innerloop_trainer.data.tables import table_of

SPLITS: tuple[Split, ...] = ("train", "validation", "test")

Splits = Mapping[Split, Classes]
"""Files by class name, for each split that was found."""

FOLDERS = "train, val and test folders with class folders in them"

ARRAYS = (".pkl", ".pickle", ".p", ".npz", ".npy", ".h5", ".hdf5")
"""Ends of the names of files that hold all images of a split at once, most of them pickled."""

CIFAR_PICKLES = ("train", "test", "meta")
"""Names of the files of CIFAR-100 itself, which are pickled too."""

WRITE_OUT = (
    "pickle files are not read, since unpickling runs any code that is in them, nor are arrays of whole splits (.npz, "
    ".hdf5); write their images out as train/CLASS/NAME.png, val/CLASS/NAME.png and test/CLASS/NAME.png with a program "
    "that you trust, or take an archive of image files"
)

RESIZED = "Pixels to resize to; proportions are not kept."

FC100_SPLITS: Mapping[Split, str] = {
    "validation": """
        bear leopard lion tiger wolf
        camel cattle chimpanzee elephant kangaroo
        crab lobster snail spider worm
        hamster mouse rabbit shrew squirrel
    """,
    "test": """
        beaver dolphin otter seal whale
        bee beetle butterfly caterpillar cockroach
        fox porcupine possum raccoon skunk
        baby boy girl man woman
    """,
    "train": """
        aquarium_fish flatfish ray shark trout
        orchid poppy rose sunflower tulip
        bottle bowl can cup plate
        apple mushroom orange pear sweet_pepper
        clock keyboard lamp telephone television
        bed chair couch table wardrobe
        bridge castle house road skyscraper
        cloud forest mountain plain sea
        crocodile dinosaur lizard snake turtle
        maple_tree oak_tree palm_tree pine_tree willow_tree
        bicycle bus motorcycle pickup_truck train
        lawn_mower rocket streetcar tank tractor
    """,
}
"""The classes of CIFAR-100 in each split of FC100, a superclass a line (Oreshkin et al. 2018, supplement)."""


@dataclass(frozen=True)
class Photos:
    """The images below one root.

    Attributes:
        source: name of the source, for messages.
        tree: folder or archive that holds them.
    """

    source: str
    tree: FileTree

    @cached_property
    def files(self) -> list[PurePosixPath]:
        """The images, sorted."""
        return [path for path in self.tree.files if path.suffix.lower() in readable_extensions()]

    def classes(self, is_class: Callable[[PurePosixPath], bool] = lambda _: True) -> Classes:
        """The files of each folder that holds images and that `is_class`, by the folder's name.

        Raises:
            DataError: two of the folders have one name.
        """
        folders = defaultdict[PurePosixPath, list[PurePosixPath]](list)
        for path in self.files:
            folders[path.parent].append(path)
        chosen = [folder for folder in folders if is_class(folder)]
        home = {folder.name: folder for folder in chosen}
        for folder in chosen:
            if home[folder.name] != folder:
                raise self.wrong(
                    f"class {folder.name!r} is in {folder.parent} and in {home[folder.name].parent}; "
                    f"give the folder that holds each class once"
                )
        return {name: folders[folder] for name, folder in home.items()}

    def lists(self, suffix: str) -> Mapping[Split, PurePosixPath]:
        """The files train, val and test of one kind; fewer if there are fewer.

        Raises:
            DataError: there are two for one split.
        """
        found: dict[Split, PurePosixPath] = {}
        for path in self.tree.files:
            split = split_called(path.stem) if path.suffix.lower() == suffix else None
            if split is not None and found.setdefault(split, path) != path:
                raise self.wrong(f"{found[split]} and {path} are both lists of one split; keep one of them")
        return found

    def read(self, path: PurePosixPath) -> bytes:
        """The content of a file.

        Raises:
            DataError: it can't be read.
        """
        try:
            return self.tree.read(path)
        except UnreadableFileError as error:
            raise self.wrong(f"{path} {error}") from error

    def wrong(self, what: str) -> DataError:
        """An error that names the source and its root."""
        return DataError(f"{self.source}: {self.tree.root}: {what}")


def by_folders(photos: Photos) -> Splits:
    """Folders train, val and test with class folders in them; empty if there are none."""
    classes = photos.classes(lambda folder: split_called(folder.parent.name) is not None)
    return _grouped(classes, lambda name: split_called(classes[name][0].parent.parent.name))


def by_class_lists(photos: Photos) -> Splits:
    """Lists train.txt, val.txt and test.txt with the name of a class folder a line; empty if there are none."""
    lists = photos.lists(".txt")
    if not lists:
        return {}
    classes = photos.classes()
    home: dict[str, Split] = {}
    lost = Broken(f"{photos.source}: {photos.tree.root}")
    for split, path in lists.items():
        for name in photos.read(path).decode(errors="replace").split("\n"):
            if not name.strip():
                continue
            if name.strip() not in classes:
                lost.note(f"{path} names the class {name.strip()!r}, of which there are no images")
            elif home.setdefault(name.strip(), split) != split:
                raise photos.wrong(f"class {name.strip()!r} is in the lists of {home[name.strip()]} and {split}")
    lost.refuse("unpack the archive again, lists and class folders beside each other")
    return _grouped({name: classes[name] for name in home}, home.get)


def by_image_lists(photos: Photos) -> Splits:
    """Lists train.csv, val.csv and test.csv with columns filename and label; empty if there are none."""
    there = defaultdict[str, list[PurePosixPath]](list)
    for image in photos.files:
        there[image.name].append(image)
    home: dict[str, Split] = {}
    classes = defaultdict[str, list[PurePosixPath]](list)
    lost = Broken(f"{photos.source}: {photos.tree.root}")
    for split, path in photos.lists(".csv").items():
        table = table_of(f"{photos.tree.root}/{path}", photos.read(path))
        if not {"filename", "label"} <= set(table.header):
            raise photos.wrong(f"{path} has no columns filename and label")
        columns = table.header.index("filename"), table.header.index("label")
        for line, row in table.rows:
            if len(row) <= max(columns):
                raise photos.wrong(f"{path}, line {line}: there is no filename or no label")
            name, label = (row[column] for column in columns)
            if len(there[name]) != 1:
                lost.note(f"{path} names the image {name}, of which there are {len(there[name])}")
            elif home.setdefault(label, split) != split:
                raise photos.wrong(f"class {label!r} is in the lists of {home[label]} and {split}")
            else:
                classes[label] += there[name]
    lost.refuse("put each image once into a folder beside the lists")
    return _grouped(classes, home.get)


def by_superclass(photos: Photos) -> Splits:
    """The class folders of CIFAR-100, divided by superclass (`FC100_SPLITS`)."""
    home = {name: split for split, names in FC100_SPLITS.items() for name in names.split()}
    return _grouped(photos.classes(lambda folder: folder.name in home), home.get)


def by_number(photos: Photos) -> Splits:
    """The folders NUMBER.CLASS in images, divided by number (Chen et al. 2019).

    Odd numbers are for training, even ones that 4 divides for test, and the others for validation. A class keeps its
    split in a copy where others are missing.
    """

    def split(name: str) -> Split:
        number = int(name.partition(".")[0])
        return "train" if number % 2 else "validation" if number % 4 else "test"

    classes = photos.classes(
        lambda each: each.parent.name in ("", "images") and each.name.partition(".")[0].isdecimal()
    )
    return _grouped(classes, split)


def _grouped(classes: Classes, split_of: Callable[[str], Split | None]) -> Splits:
    """Classes by the split that their names belong to; those of none are left out."""
    splits = defaultdict[Split, dict[str, Sequence[PurePosixPath]]](dict)
    for name, files in classes.items():
        split = split_of(name)
        if split is not None:
            splits[split][name] = files
    return splits


@dataclass(frozen=True)
class SmallOptions:
    """Options of sources of small photographs."""

    size: tuple[int, int] = option((32, 32), SIZE, RESIZED)


@dataclass(frozen=True)
class LargeOptions:
    """Options of sources of larger photographs."""

    size: tuple[int, int] = option((84, 84), SIZE, RESIZED)


class PublishedSplit(SourceLoader):
    """A data set with the split that papers measure on; each subclass is one.

    Attributes:
        title: name of the data set, and the paper that divides it.
        counts: number of classes for training, validation and test, as published.
        layout: what `divide` reads, for messages; empty if it reads nothing.
    """

    title: ClassVar[str]
    counts: ClassVar[tuple[int, int, int]]
    layout: ClassVar[str] = ""
    options: ClassVar[type[SmallOptions | LargeOptions]] = LargeOptions

    @staticmethod
    def divide(photos: Photos) -> Splits:
        """Find the splits where no folders do; empty if there are none."""
        del photos
        return {}

    def options_for(self, encoder: EncoderSpec) -> Mapping[str, str]:
        """As in `SourceLoader`."""
        if encoder.input != "images":
            return {}
        _, height, width = encoder.shape
        return {"size": SIZE.write((height, width))}

    def load(self, request: SourceRequest) -> DataSource:
        """As in `SourceLoader`."""
        options = read_options(request, self.options)
        photos = Photos(request.name, _open(request, existing_path(request, self.example)))
        splits = self._splits(photos)
        classes = {name: files for each in splits.values() for name, files in each.items()}
        images = read_images(request, photos.tree, classes, options.size, "rgb", advice="replace them")
        names: dict[str, list[str]] = {split: list(splits[split]) for split in SPLITS}
        height, width = options.size
        return source_of_classes(
            request.name,
            f"{self.title}: {len(images.examples):,} images, RGB, resized to {height} x {width}, "
            f"{describe_split(names, 'as published')}",
            input_of(3, options.size),
            request.device,
            train=images.select(names["train"]),
            validation=images.select(names["validation"]),
            test=images.select(names["test"]),
            options=write_options(options),
            notices=[*self._notices(photos, splits)],
        )

    def _splits(self, photos: Photos) -> Splits:
        """The classes of each split.

        Raises:
            DataError: there are no images, or a split has none.
        """
        read = f"what is read is {' or '.join(filter(None, (FOLDERS, self.layout)))}"
        if not photos.files:
            others = photos.tree.files
            archives = any(path.name.lower().endswith(ARCHIVES) for path in others)
            advice = (
                WRITE_OUT if any(map(_is_array, others)) else "give the path of an archive itself" if archives else read
            )
            raise photos.wrong(f"there are no images ({format_names()}) among {count_kinds(others)}; {advice}")
        splits = by_folders(photos) or self.divide(photos)
        missing = [split for split in SPLITS if not splits.get(split)]
        if missing:
            raise photos.wrong(f"there are images, but no classes for {' and '.join(missing)}; {read}")
        return splits

    def _notices(self, photos: Photos, splits: Splits) -> Iterator[str]:
        counts = tuple(len(splits[split]) for split in SPLITS)
        if counts != self.counts:
            yield (
                f"{self.title} has {_listed(self.counts)} classes for training, validation and test, and this copy has "
                f"{_listed(counts)}: figures on it don't compare with published ones"
            )
        outside = len(photos.files) - sum(len(files) for classes in splits.values() for files in classes.values())
        if outside:
            yield f"{counted(outside, 'image')} of no split left out"


class CifarFS(PublishedSplit):
    """CIFAR-FS."""

    title = "CIFAR-FS (Bertinetto et al. 2019)"
    summary = "CIFAR-FS: 100 classes of CIFAR-100, divided at random; the archive of R2D2, or folders of the splits"
    example = "cifar-fs:~/data/cifar100.zip"
    counts = (64, 16, 20)
    layout = (
        "cifar100/data/CLASS/NAME.png with lists of classes cifar100/splits/bertinetto/train.txt, val.txt and test.txt"
    )
    options = SmallOptions
    divide = staticmethod(by_class_lists)


class MiniImageNet(PublishedSplit):
    """mini-ImageNet."""

    title = "mini-ImageNet (Ravi and Larochelle 2017)"
    summary = (
        "mini-ImageNet: 100 classes of ImageNet; images with train.csv, val.csv and test.csv, or folders of the splits"
    )
    example = "mini-imagenet:~/data/mini-imagenet"
    counts = (64, 16, 20)
    layout = "images/NAME.jpg with train.csv, val.csv and test.csv (filename,label)"
    divide = staticmethod(by_image_lists)


class TieredImageNet(PublishedSplit):
    """tiered-ImageNet."""

    title = "tiered-ImageNet (Ren et al. 2018)"
    summary = "tiered-ImageNet: 608 classes of ImageNet, divided by what they are kinds of; folders of the splits"
    example = "tiered-imagenet:~/data/tiered-imagenet"
    counts = (351, 97, 160)


class FC100(PublishedSplit):
    """FC100."""

    title = "FC100 (Oreshkin et al. 2018)"
    summary = "FC100: 100 classes of CIFAR-100, divided by superclass; the archive of R2D2, or folders of the splits"
    example = "fc100:~/data/FC100"
    counts = (60, 20, 20)
    layout = "class folders with the names of CIFAR-100's classes"
    options = SmallOptions
    divide = staticmethod(by_superclass)


class Cub(PublishedSplit):
    """CUB-200-2011."""

    title = "CUB-200-2011 (Wah et al. 2011, divided by Chen et al. 2019)"
    summary = (
        "CUB-200-2011: 200 kinds of birds, divided by their numbers; the original archive, or folders of the splits"
    )
    example = "cub:~/data/CUB_200_2011.tgz"
    counts = (100, 50, 50)
    layout = "CUB_200_2011/images/NUMBER.CLASS/NAME.jpg"
    divide = staticmethod(by_number)


def _open(request: SourceRequest, path: Path) -> FileTree:
    if path.is_file() and _is_array(path):
        raise DataError(f"{request.name}: {path}: {WRITE_OUT}")
    return open_tree(path)


def _is_array(path: PurePath) -> bool:
    return path.suffix.lower() in ARRAYS or path.name in CIFAR_PICKLES


def _listed(counts: tuple[int, ...]) -> str:
    *first, last = map(str, counts)
    return f"{', '.join(first)} and {last}"


sources.register("cifar-fs")(CifarFS())
sources.register("mini-imagenet")(MiniImageNet())
sources.register("tiered-imagenet")(TieredImageNet())
sources.register("fc100")(FC100())
sources.register("cub")(Cub())
