"""`images:PATH?key=value&...`: a user's own images, in one folder per class, or without labels in a single folder.

PATH is a folder, or a zip or tar archive of one. If there are train, val and test folders in it, they are the splits;
otherwise the classes are shuffled with `seed` and split. Images that all lie in a single folder have no labels: each is
a class of its own, for learning without labels. `ImageOptions` says what options there are.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from innerloop_learner.encoders import EncoderSpec
from innerloop_learner.media import format_names, missing_extensions, readable_extensions
from innerloop_learner.spec import InputSpec
from innerloop_trainer.data.cache import cached
from innerloop_trainer.data.class_examples import source_of_classes
from innerloop_trainer.data.class_folders import Classes, FileKind, find_classes, single_folder
from innerloop_trainer.data.class_split import SplitOptions, describe_split
from innerloop_trainer.data.decode import decode_classes, image_decoder
from innerloop_trainer.data.example_set import ExampleSet
from innerloop_trainer.data.file_tree import FileTree, open_tree, title_of
from innerloop_trainer.data.found_splits import split_found
from innerloop_trainer.data.left_out import LeaveOutOptions, counted, leave_out_small
from innerloop_trainer.data.options import FLAG, SIZE, existing_path, one_of, option, read_options, write_options
from innerloop_trainer.data.source import DataError, DataSource, SourceLoader, SourceRequest, sources

EXAMPLE = "images:~/pictures (a folder, or a zip or tar archive, with one folder of images per class)"

IMAGES = FileKind("images", "images", readable_extensions, format_names, missing_extensions)


@dataclass(frozen=True)
class ImageOptions(SplitOptions, LeaveOutOptions):
    """Options of the source of images."""

    size: tuple[int, int] = option((64, 64), SIZE, "Pixels to resize to; proportions are not kept.")
    color: str = option("auto", one_of("auto", "gray", "rgb"), "What is read; auto is gray if no image has any colour.")
    nested: bool = option(False, FLAG, "Folders of one name below different folders are different classes.")
    domains: str = option(
        "none",
        one_of("none", "folder"),
        "Folder: the classes of each episode lie in one folder, its domain, and where folders are no splits, whole "
        "domains are divided.",
    )


class Images(SourceLoader):
    """The source of a user's own images."""

    summary = "one's own images: a folder per class, or a zip or tar archive; a single folder if without labels"
    example = "images:~/pictures?size=32"
    options = ImageOptions

    def options_for(self, encoder: EncoderSpec) -> Mapping[str, str]:
        """As in `SourceLoader`."""
        if encoder.input != "images":
            return {}
        channels, *size = encoder.shape
        return {"size": SIZE.write((size[0], size[1])), "color": "gray" if channels == 1 else "rgb"}

    def load(self, request: SourceRequest) -> DataSource:
        """As in `SourceLoader`."""
        options = read_options(request, ImageOptions)
        path = existing_path(request, EXAMPLE)
        tree = open_tree(path)
        single = single_folder(IMAGES, tree)
        nested = options.nested or options.domains == "folder"
        layout = single or find_classes(IMAGES, tree, nested=nested, skip_empty=options.min_examples > 0)
        files = {name: files for classes in layout.splits.values() for name, files in classes.items()}
        decoded = read_images(
            request,
            tree,
            files,
            options.size,
            options.color,
            skip_broken=options.skip_broken,
            advice="replace or remove them, or leave them out with ?skip_broken=true",
        )
        images, small = (_readable(decoded), ()) if single else _usable(request, options, tree, decoded)
        labels = "without labels" if single else f"of {len(images.names)} classes"
        if options.domains == "folder":
            images = replace(images, domains=_domains(images.names))
        splits, how = split_found(request, options, layout.splits, images)
        channels = images.examples.shape[1]
        height, width = options.size
        return source_of_classes(
            f"images:{title_of(path)}",
            f"{len(images.examples):,} images {labels}, {'gray' if channels == 1 else 'RGB'}, "
            f"resized to {height} x {width}, {describe_split(splits, how)}",
            input_of(channels, options.size),
            request.device,
            train=images.select(splits["train"]),
            validation=images.select(splits["validation"]),
            test=images.select(splits["test"]),
            options=write_options(options),
            notices=[*layout.notices, *_notices(files, decoded, _blanks(images)), *small],
        )


def _domains(classes: Sequence[str]) -> tuple[str, ...]:
    """The folder that each class folder lies in."""
    domains = tuple(name.rpartition("/")[0] for name in classes)
    if "" in domains:
        raise DataError(
            f"images: the folder of class {classes[domains.index('')]!r} lies in no folder of a domain; put class "
            "folders into folders of domains, or leave ?domains= out"
        )
    return domains


def _usable(
    request: SourceRequest, options: ImageOptions, tree: FileTree, decoded: ExampleSet
) -> tuple[ExampleSet, Sequence[str]]:
    """The classes that are large enough, and notices about others.

    Raises:
        DataError: a class has no images, or none but blank ones.
    """
    images, small = leave_out_small(request.name, decoded, options)
    _reject_blank(tree, images, _blanks(images))
    return images, small


def _readable(decoded: ExampleSet) -> ExampleSet:
    """The images that could be read, each a class of its own."""
    return decoded.select([name for name, count in zip(decoded.names, decoded.counts, strict=True) if count])


def input_of(channels: int, size: tuple[int, int]) -> InputSpec:
    """The inputs that images become, which are normalised alike in all data.

    A bundle can then be evaluated on another data set.
    """
    return InputSpec((channels, *size), dtype="uint8", mean=(0.5,), std=(0.5,), scale=1 / 255)


def read_images(
    request: SourceRequest,
    tree: FileTree,
    classes: Classes,
    size: tuple[int, int],
    color: str,
    *,
    advice: str,
    skip_broken: bool = False,
) -> ExampleSet:
    """Read the images of every class from the cache, or from their files.

    Args:
        request: the parsed text that names the source.
        tree: folder or archive that holds the files.
        classes: paths of files by class name.
        size: height and width to resize to, in pixels.
        color: "gray", "rgb", or "auto" for gray if no image has any colour.
        advice: advice for messages about files that can't be read.
        skip_broken: whether such files are left out.

    Raises:
        DataError: files can't be read, and the message names them; or all together need too much memory.
    """

    def decode() -> ExampleSet:
        decoded = decode_classes(
            tree,
            classes,
            image_decoder(size, "L" if color == "gray" else "RGB"),
            skip_broken=skip_broken,
            advice=advice,
            scratch=request.scratch,
        )
        if color == "auto" and _colourless(decoded):
            return decoded.first_channel()
        return decoded

    if request.scratch is not None:
        return decode()

    told = {"size": size, "color": color, "skip_broken": skip_broken}
    # Which files are images changes with what is installed, so each is named.
    chosen = {name: list(map(str, files)) for name, files in classes.items()}
    return cached("images", {"files": tree.identity(), "classes": chosen, **told}, decode)


def _colourless(images: ExampleSet) -> bool:
    """Whether all channels are equal."""
    return all(bool((part == part[:, :1]).all()) for part in images.in_parts())


def _blanks(images: ExampleSet) -> dict[str, int]:
    """Count the images of each class that are of one colour only."""
    blank = [(part == part[:, :, :1, :1]).all((1, 2, 3)) for part in images.in_parts()]
    return images.count(np.concatenate([np.zeros(0, bool), *blank]))


def _reject_blank(tree: FileTree, images: ExampleSet, blanks: Mapping[str, int]) -> None:
    empty = [name for name, count in zip(images.names, images.counts, strict=True) if blanks[name] == count]
    if empty:
        raise DataError(
            f"images: {tree.root}: every image of {', '.join(map(repr, empty[:10]))} is blank, of one colour and "
            f"nothing else; look at the files, and replace or remove them"
        )


def _notices(files: Classes, decoded: ExampleSet, blanks: Mapping[str, int]) -> Iterator[str]:
    broken = sum(map(len, files.values())) - len(decoded.examples)
    if broken:
        yield f"{counted(broken, 'broken image')} left out"
    if any(blanks.values()):
        total, most = sum(blanks.values()), max(blanks, key=lambda name: blanks[name])
        yield f"{counted(total, 'blank image')}, of one colour and nothing else, most of them in {most}"


sources.register("images")(Images())
