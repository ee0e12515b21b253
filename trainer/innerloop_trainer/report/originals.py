"""Examples as people know them: pictures, spectrograms of recordings, and texts."""

import base64
import io
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps, mlab
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from innerloop_learner.encoders import unpack_texts
from innerloop_trainer.report.subject import Subject

LARGEST = 96
"""Height and width that pictures are reduced to, in pixels, so that a page stays small."""

MOST_LETTERS, MOST_NUMBERS = 240, 6
"""Letters of a text, and numbers of a vector, that are shown."""

WINDOW, LAP = 0.025, 0.015
"""Length of the windows of a spectrogram, and how far they overlap, in seconds."""

DECIBELS = 60.0
"""Range of levels that is shown, below the loudest."""

SPECTROGRAM = (96, 64)
"""Width and height of a spectrogram, in pixels."""


class Original(NamedTuple):
    """An example to be shown: the address of an embedded picture, or a text; the other is empty."""

    picture: str
    text: str


def original(raw: Tensor, subject: Subject) -> Original:
    """Show one raw example, as `ClassExamples.sample_raw` gives it."""
    values = raw.cpu().numpy()
    if subject.texts:
        text = unpack_texts(values[None])[0]
        return Original("", text if len(text) <= MOST_LETTERS else text[:MOST_LETTERS] + " …")
    if subject.rate:
        return Original(_embedded(_spectrogram(values, subject.rate)), "")
    if values.ndim == 3 and values.shape[0] in (1, 3) and values.dtype == np.uint8:
        return Original(_embedded(_image(values)), "")
    numbers = [f"{value:.3g}" for value in values.ravel()[:MOST_NUMBERS]]
    return Original("", ", ".join(numbers) + (" …" if values.size > MOST_NUMBERS else ""))


def _image(pixels: NDArray[Any]) -> Image.Image:
    """The picture of pixels [C, H, W] of 0 to 255."""
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def _spectrogram(samples: NDArray[Any], rate: int) -> Image.Image:
    """The power of a recording by time (to the right) and frequency (upwards)."""
    length = max(16, int(WINDOW * rate))
    power, _, _ = mlab.specgram(samples.ravel(), NFFT=length, Fs=rate, noverlap=min(length - 1, int(LAP * rate)))
    level = 10 * np.log10(np.maximum(power, 1e-12))
    shown = np.clip((level - level.max()) / DECIBELS + 1, 0, 1)
    return Image.fromarray((colormaps["magma"](shown[::-1])[..., :3] * 255).astype(np.uint8)).resize(SPECTROGRAM)


def _embedded(picture: Image.Image) -> str:
    """The picture as an address that holds it."""
    large = max(picture.size) > LARGEST
    if large:
        picture = picture.copy()
        picture.thumbnail((LARGEST, LARGEST))
    kind = "JPEG" if picture.mode == "RGB" and max(picture.size) > LARGEST // 2 else "PNG"
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({"quality": 80} if kind == "JPEG" else {"optimize": True}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
