"""Makes a folder of photographs laid out like ImageNet: class folders of JPEGs of varying sizes, by a seed.

    python benchmarks/data/photos.py OUT [--classes 100] [--images 200] [--seed 0]

Each image is smooth colour with an object of its class and faint noise, so that files are as large as photographs of
their size, about 60 kB. Making a picture takes longer than reading one, so each is written as several files that differ
in bytes behind the picture: they are decoded one by one, and their digests differ.
"""

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIDES = (240, 500)
"""Least and most pixels of a side: those of ImageNet are about 400 x 350 in the median."""

QUALITY, COPIES = 90, 10


def make_photos(
    out: Path, *, classes: int, images: int, seed: int, sides: tuple[int, int] = SIDES, copies: int = COPIES
) -> int:
    """Write so many class folders of so many images each; returns the bytes of all files.

    Args:
        out: folder of the class folders.
        classes: class folders.
        images: files in each.
        seed: seed of all pictures.
        sides: least and most pixels of a side.
        copies: files that one picture is written as.
    """
    size = 0
    for number in range(classes):
        folder = out / f"n{number:08}"
        folder.mkdir(parents=True)
        random = np.random.default_rng((seed, number))
        form = random.random((6, 2))
        for index in range(images):
            if index % copies == 0:
                buffer = io.BytesIO()
                _photo(random, form, sides).save(buffer, "JPEG", quality=QUALITY)
            path = folder / f"{folder.name}_{index}.JPEG"
            size += path.write_bytes(buffer.getvalue() + index.to_bytes(4))
    return size


def _photo(random: np.random.Generator, form: np.ndarray, sides: tuple[int, int]) -> Image.Image:
    """One image of a class; `form` [6, 2] are the corners of its object."""
    height, width = (int(side) for side in random.integers(sides[0], sides[1] + 1, 2))
    colours = Image.fromarray(random.integers(0, 256, (5, 5, 3), np.uint8))
    picture = colours.resize((width, height), Image.Resampling.BICUBIC)
    corners = (form + 0.1 * random.standard_normal(form.shape)) * (width, height)
    red, green, blue = (int(value) for value in random.integers(0, 256, 3))
    ImageDraw.Draw(picture).polygon([(float(x), float(y)) for x, y in corners], fill=(red, green, blue))
    noise = random.integers(-12, 13, (height, width, 1), np.int16)
    return Image.fromarray(np.clip(np.asarray(picture, np.int16) + noise, 0, 255).astype(np.uint8))


def main() -> None:
    """Read the arguments and make the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    size = make_photos(arguments.out, classes=arguments.classes, images=arguments.images, seed=arguments.seed)
    print(f"{arguments.out}: {size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
