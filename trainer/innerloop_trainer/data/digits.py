"""`digits`: scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, for a first try without a download.

Ten classes allow six to learn from and two each for validation and test, so its tasks have two ways.
"""

import numpy as np
from sklearn.datasets import load_digits

from innerloop_learner.spec import InputSpec
from innerloop_trainer.data.class_digests import digest_arrays
from innerloop_trainer.data.class_examples import source_of_classes
from innerloop_trainer.data.example_set import ExampleSet
from innerloop_trainer.data.options import read_options, reject_path, write_options
from innerloop_trainer.data.source import DataSource, SourceLoader, SourceRequest, sources

INPUT = InputSpec(shape=(1, 8, 8), dtype="uint8", scale=1 / 255)
"""Ink is high, as in the original, where it goes from 0 to 16."""

TRAIN, VALIDATION, TEST = ("0", "1", "2", "3", "4", "5"), ("6", "7"), ("8", "9")


class Digits(SourceLoader):
    """The digits source."""

    summary = "scikit-learn's handwritten digits of 8 x 8 pixels; built in"
    example = "digits"

    def load(self, request: SourceRequest) -> DataSource:
        """As in `SourceLoader`."""
        reject_path(request)
        options = read_options(request, self.options)
        images = _images()
        return source_of_classes(
            "digits",
            "8 x 8 pixel handwritten digits: 0 to 5 for training, 6 and 7 for validation, 8 and 9 for test",
            INPUT,
            request.device,
            train=images.select(TRAIN),
            validation=images.select(VALIDATION),
            test=images.select(TEST),
            options=write_options(options),
        )


def _images() -> ExampleSet:
    """All digits, sorted by class, with 0 .. 16 spread over 0 .. 255."""
    data = load_digits()
    order = np.argsort(data.target, kind="stable")
    images = (data.images[order, None] * (255 / 16)).round().astype(np.uint8)
    counts = np.bincount(data.target).astype(np.int64)
    return ExampleSet((*TRAIN, *VALIDATION, *TEST), counts, images, digest_arrays(counts, images))


sources.register("digits")(Digits())
