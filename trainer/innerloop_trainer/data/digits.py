"""`digits`: scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, for a first try without a download.

Ten classes allow six to learn from and two each for validation and test, so its tasks have two ways. Rotated, they are
domains, of which those for validation and test are never trained on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from innerloop_learner.spec import InputSpec
from innerloop_trainer.data.class_digests import digest_arrays
from innerloop_trainer.data.class_examples import source_of_classes
from innerloop_trainer.data.example_set import ExampleSet
from innerloop_trainer.data.options import one_of, option, read_options, reject_path, write_options
from innerloop_trainer.data.source import DataSource, SourceLoader, SourceRequest, sources

INPUT = InputSpec(shape=(1, 8, 8), dtype="uint8", scale=1 / 255)
"""Ink is high, as in the original, where it goes from 0 to 16."""

TRAIN, VALIDATION, TEST = ("0", "1", "2", "3", "4", "5"), ("6", "7"), ("8", "9")

ROTATIONS: Mapping[str, Sequence[int]] = {"train": (0, 15, 30, 45), "validation": (60,), "test": (75, 90)}
"""Angles by which the digits of each split are rotated if rotations are domains, in degrees."""


@dataclass(frozen=True)
class DigitOptions:
    """Options of the digits source."""

    domains: str = option(
        "none",
        one_of("none", "rotation"),
        "Rotation: train on digits rotated by 0, 15, 30 or 45 degrees, those of an episode alike; validate at 60, and "
        "test at 75 and 90 degrees.",
    )


class Digits(SourceLoader):
    """The digits source."""

    summary = "scikit-learn's handwritten digits of 8 x 8 pixels; built in"
    example = "digits"
    options = DigitOptions

    def load(self, request: SourceRequest) -> DataSource:
        """As in `SourceLoader`."""
        reject_path(request)
        options = read_options(request, DigitOptions)
        images = _images()
        rotated = options.domains == "rotation"

        def split(digits: Sequence[str], angles: Sequence[int]) -> ExampleSet:
            chosen = images.select(digits)
            return _rotated(chosen, angles) if rotated else chosen

        how = ", each rotated by angles of its split" if rotated else ""
        return source_of_classes(
            "digits",
            f"8 x 8 pixel handwritten digits: 0 to 5 for training, 6 and 7 for validation, 8 and 9 for test{how}",
            INPUT,
            request.device,
            train=split(TRAIN, ROTATIONS["train"]),
            validation=split(VALIDATION, ROTATIONS["validation"]),
            test=split(TEST, ROTATIONS["test"]),
            options=write_options(options),
        )


def _images() -> ExampleSet:
    """All digits, sorted by class, with 0 .. 16 spread over 0 .. 255."""
    data = load_digits()
    order = np.argsort(data.target, kind="stable")
    images = (data.images[order, None] * (255 / 16)).round().astype(np.uint8)
    counts = np.bincount(data.target).astype(np.int64)
    return ExampleSet((*TRAIN, *VALIDATION, *TEST), counts, images, digest_arrays(counts, images))


def _rotated(digits: ExampleSet, angles: Sequence[int]) -> ExampleSet:
    """Each class at each of the angles, which are domains."""
    images = np.concatenate([_turned(np.asarray(digits.examples), angle) for angle in angles])
    counts = np.tile(digits.counts, len(angles))
    return ExampleSet(
        tuple(f"{name} at {angle} degrees" for angle in angles for name in digits.names),
        counts,
        images,
        digest_arrays(counts, images),
        domains=tuple(f"{angle} degrees" for angle in angles for _ in digits.names),
    )


def _turned(images: NDArray[np.uint8], angle: int) -> NDArray[np.uint8]:
    """Images [N, 1, 8, 8], rotated."""
    bilinear = Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(image[0]).rotate(angle, bilinear))[None] for image in images])


sources.register("digits")(Digits())
