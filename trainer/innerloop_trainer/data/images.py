"""`images:PATH[?size=64&color=auto&val=0.15&test=0.2&seed=0]`: one's own images, a folder per class.

PATH is a folder or a zip archive. If there are train, val and test folders in it, they are the splits; otherwise the
classes are shuffled with `seed` and split. Options:

- size: pixels to resize to, one number or HEIGHTxWIDTH; proportions are not kept. 64 unless told.
- color: gray, rgb, or auto, which is gray if no image has any colour.
- val, test: fractions of the classes for validation and test.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from innerloop_learner.spec import InputSpec
from innerloop_trainer.data.cache import cached
from innerloop_trainer.data.class_examples import source_of_classes
from innerloop_trainer.data.class_split import SplitOptions, Splits, describe_split, split_by_seed
from innerloop_trainer.data.decode import decode_classes
from innerloop_trainer.data.example_set import ExampleSet
from innerloop_trainer.data.file_tree import FileTree, open_tree
from innerloop_trainer.data.image_layout import Classes, find_splits
from innerloop_trainer.data.options import SIZE, existing_path, one_of, option, read_options, write_options
from innerloop_trainer.data.source import DataError, DataSource, SourceLoader, SourceRequest, sources

EXAMPLE = "images:~/pictures (a folder or a zip archive with one folder of images per class)"


@dataclass(frozen=True)
class ImageOptions(SplitOptions):
    """Options of the source of images."""

    size: tuple[int, int] = option((64, 64), SIZE, "Pixels to resize to; proportions are not kept.")
    color: str = option("auto", one_of("auto", "gray", "rgb"), "What is read; auto is gray if no image has any colour.")


class Images(SourceLoader):
    """The source of a user's own images."""

    options = ImageOptions

    def load(self, request: SourceRequest) -> DataSource:
        """As in `SourceLoader`."""
        options = read_options(request, ImageOptions)
        path = existing_path(request, EXAMPLE)
        tree = open_tree(path)
        found = find_splits(tree)
        if "" in found:
            splits, how = split_by_seed(request.name, options, list(found[""]))
        else:
            splits, how = _split_by_folder(request, found)
        classes = {name: files for part in found.values() for name, files in part.items()}
        images = _decode(tree, classes, options.size, options.color)
        channels = images.examples.shape[1]
        # The same for every data set, so that a bundle trained on one can be evaluated on another.
        spec = InputSpec((channels, *options.size), dtype="uint8", mean=(0.5,), std=(0.5,), scale=1 / 255)
        name = f"images:{path.resolve().name.removesuffix('.zip')}"
        height, width = options.size
        colors = "gray" if channels == 1 else "RGB"
        return source_of_classes(
            name,
            f"{len(images.examples):,} images of {len(classes)} classes, {colors}, resized to {height} x {width}, "
            + describe_split(splits, how),
            spec,
            request.device,
            train=images.select(splits["train"]),
            validation=images.select(splits["validation"]),
            test=images.select(splits["test"]),
            options=write_options(options),
        )


def _split_by_folder(request: SourceRequest, found: Mapping[str, Classes]) -> tuple[Splits, str]:
    for key in (field.name for field in fields(SplitOptions)):
        if key in request.options:
            raise DataError(f"images: {key} has no effect where train, val and test folders are the splits; leave it")
    return {part: list(classes) for part, classes in found.items()}, "by folder"


def _decode(tree: FileTree, classes: Classes, size: tuple[int, int], color: str) -> ExampleSet:
    def decode() -> ExampleSet:
        decoded = decode_classes(tree, classes, size, "L" if color == "gray" else "RGB")
        if color == "auto" and _colourless(decoded):
            return replace(decoded, examples=decoded.examples[:, :1])
        return decoded

    identity = {"files": tree.identity(), "classes": list(classes), "size": size, "color": color}
    return cached("images", identity, decode)


def _colourless(images: ExampleSet) -> bool:
    """Whether all channels are equal, looked at image by image to need no second copy of all."""
    return all(bool(np.array_equal(image, np.broadcast_to(image[:1], image.shape))) for image in images.examples)


sources.register("images")(Images())
