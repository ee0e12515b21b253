"""Image files of requests to arrays: decoded by what decodes them in training."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from innerloop_learner.media import UnreadableImageError, fit_image, open_image
from innerloop_server.transport.codec.turns import turn
from innerloop_server.transport.codec.violations import MOST_NAMED, Violations

MAX_PIXELS_IN_ALL = 1_000_000_000
"""Most pixels of all images of one request together."""


def decode_images(
    files: Sequence[bytes], field: str, shape: tuple[int, ...], violations: Violations
) -> NDArray[np.uint8] | None:
    """Images [N, channels, height, width] from image files.

    Args:
        files: contents.
        field: path of the repeated field, for violations.
        shape: channels, height and width to convert and resize to.
        violations: receives what is wrong.

    Returns:
        None when something is wrong.
    """
    images = np.empty((len(files), *shape), np.uint8)
    channels, *size = shape
    pixels = unreadable = 0
    for index, content in enumerate(files):
        try:
            with open_image(content) as image:
                pixels += image.width * image.height
                if pixels > MAX_PIXELS_IN_ALL:
                    violations.add(field, f"unfold to more than {MAX_PIXELS_IN_ALL:,} pixels in all; send fewer")
                    return None
                with turn(image.width * image.height):
                    images[index] = fit_image(image, (size[0], size[1]), "L" if channels == 1 else "RGB")
        except UnreadableImageError as error:
            violations.add(f"{field}[{index}]", str(error))
            unreadable += 1
            if unreadable == MOST_NAMED:
                break
    return None if unreadable else images
