"""Log-mel spectrograms as a frozen encoder without learned weights, for meta-training on sound from nothing."""

import numpy as np
from numpy.typing import NDArray

from innerloop_learner.encoders import EncoderError, EncoderOptions, EncoderOrigin, FrozenEncoder
from innerloop_learner.encoders.session import Computing
from innerloop_learner.media.audio_formats import SPEECH_EXTRA
from innerloop_trainer.encoders.files import EncoderFiles, open_files
from innerloop_trainer.encoders.graph_writer import GraphWriter

NAME = "log-mel"
"""Name by which bundles and messages call it."""

WINDOW_SECONDS, HOP_SECONDS = 0.025, 0.01
"""Length of the windows and time from one to the next, as is usual for speech; bands of the Fourier transform are
40 Hz wide at every rate."""

MELS = 40
"""Bands of a spectrogram."""

LOWEST_HERTZ, HIGHEST_HERTZ = 60.0, 20_000.0
"""Range of the bands: below lies the hum of mains, above nothing that anybody hears."""

RANGE_DECIBELS = 40.0
"""Range below the loudest value of a recording; what is fainter counts as silence. Chosen on spoken digits 0 to 4, by
class means at one shot, support sets and queries by different speakers: 30 dB gives 51%, 40 dB 53%, 50 dB 48%, 60 dB
41%, 80 dB 31%, and decibels as they are 23%."""

FAINTEST = 1e-10
"""Power below which a band counts as silent, where full scale is 1."""


def mel_weights(rate: int, window: int) -> NDArray[np.float64]:
    """Triangular weights [MELS, B] of the bands of a Fourier transform, of equal height and evenly spread in mels.

    A mel is 2595 log10(1 + f / 700) (O'Shaughnessy 1987). Bands above the highest triangle are left out.

    Args:
        rate: sampling rate in Hz.
        window: length of the transform in samples.
    """
    highest = min(rate / 2, HIGHEST_HERTZ)
    mels = np.linspace(_mels(LOWEST_HERTZ), _mels(highest), MELS + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    low, middle, high = (edges[first : first + MELS, None] for first in range(3))
    hertz = np.arange(int(highest * window / rate) + 1) * rate / window
    rising, falling = (hertz - low) / (middle - low), (high - hertz) / (high - middle)
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float64)


def _mels(hertz: float) -> float:
    return float(2595 * np.log10(1 + hertz / 700))


def spectrogram_encoder(rate: int, samples: int, computing: Computing) -> FrozenEncoder:
    """The encoder from waveforms [N, samples] to log-mel spectrograms [N, 1, MELS, frames].

    Args:
        rate: sampling rate in Hz.
        samples: length of the waveforms.
        computing: hardware to compute on.

    Raises:
        EncoderError: recordings are shorter than a window, or a library is missing.
    """
    if samples < round(WINDOW_SECONDS * rate):
        raise EncoderError(
            f"recordings of {samples} samples at {rate:,} Hz are too short for a spectrogram, whose "
            f"windows take {WINDOW_SECONDS * 1000:g} ms; ask for more ?seconds="
        )
    try:
        graph = spectrogram_graph(rate, samples)
    except ModuleNotFoundError as error:
        raise EncoderError(f"spectrograms need {error.name}; {SPEECH_EXTRA}") from error
    options = EncoderOptions(pooling="none", normalise=False, rate=rate, shape=(samples,))
    return open_files(EncoderFiles(graph, None, options, EncoderOrigin(NAME, "computed, without weights")), computing)


def spectrogram_graph(rate: int, samples: int) -> bytes:
    """The encoder as the content of an ONNX file.

        power    = |Fourier transform of each window times a Hann window|^2
        decibels = 10 log10(mel_weights power)
        maps     = 1 + max(decibels - largest of the recording, -RANGE_DECIBELS) / (RANGE_DECIBELS / 2)

    so that values are from -1 to 1. The transform is a convolution, which every runtime has, on every device.

    Raises:
        ModuleNotFoundError: onnx is not installed.
    """
    window, hop = round(WINDOW_SECONDS * rate), round(HOP_SECONDS * rate)
    weights = mel_weights(rate, window)
    frames = (samples - window) // hop + 1
    writer = GraphWriter()
    waves = writer.constant(_waves(window, weights.shape[1]), "waves")
    both = writer.constant(np.concatenate([weights, weights], axis=1), "weights")
    channel = writer.constant(np.array([1]), "channel")
    signal = writer.add("Unsqueeze", writer.input("samples", ("N", samples)), channel)
    transform = writer.add("Conv", signal, waves, strides=[hop])  # [N, 2 * bands, frames]
    power = writer.add("MatMul", both, writer.add("Mul", transform, transform))  # [N, MELS, frames]
    logarithm = writer.add("Log", writer.add("Max", power, writer.constant(np.array(FAINTEST), "faintest")))
    largest = writer.add("ReduceMax", logarithm, writer.constant(np.array([1, 2]), "bands_and_frames"), keepdims=1)
    below = writer.add("Sub", logarithm, largest)
    # 10 / ln 10 decibels are one unit of the natural logarithm.
    scaled = writer.add("Mul", below, writer.constant(np.array(20 / np.log(10) / RANGE_DECIBELS), "scale"))
    audible = writer.add("Max", scaled, writer.constant(np.array(-2.0), "least"))
    shifted = writer.add("Add", audible, writer.constant(np.array(1.0), "one"))
    writer.output(writer.add("Unsqueeze", shifted, channel), "spectrogram", ("N", 1, MELS, frames))
    return writer.finish()


def _waves(window: int, bands: int) -> NDArray[np.float64]:
    """Cosines and sines of the Fourier transform under a Hann window [2 * bands, 1, window]."""
    time = np.arange(window)
    angles = 2 * np.pi * np.outer(np.arange(bands), time) / window
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * time / window)
    return (np.concatenate([np.cos(angles), np.sin(angles)]) * hann)[:, None]
