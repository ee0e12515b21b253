"""Recordings of any length, rate and number of channels to float32 waveforms of one length and rate.

A word or a sound must be in the waveform, and at the same place of it, wherever it lies in its recording:

- channels are averaged, and a constant offset, which nobody hears, is removed;
- a window of the length asked for is put where its middle is loudest: among all places in steps of 10 ms, at the one
  where the levels of the recording, weighted by a parabola over the window, have the largest sum. A short recording is
  so surrounded by silence with its sound in the middle, whatever pauses it begins and ends with; of a long one, the
  loudest part is kept;
- the window is resampled to the rate asked for. Its loudness stays as it is.

The rules look at one recording alone, so that it is heard alike in a training set and in a request.
`benchmarks/audio_window` measures them on spoken digits (0 to 4, class means, 5 ways and one shot, examples and queries
by different speakers), as they are and with up to a second of faint noise around each. By an encoder of speech, the
loudest place gives 94.8% and 95.8%; the middle of the file 94.9% and 81.9%; the middle of what is left after silence is
cut off at -40 dB 94.6% and 92.0%; the beginning 27.8% and 59.0%. By log-mel spectrograms, which depend on the place
more, it is 56.7% and 56.5%; 46.0% and 24.8%; 46.5% and 40.1%; 36.3% and 22.6%.

Everything that a file claims of itself is checked before memory is taken for it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from innerloop_learner.media.audio_formats import AUDIO_FORMATS, SPEECH_EXTRA, audio_format_names, reads_audio

MAX_AUDIO_SECONDS = 300
"""Longest recording in training and serving; a model hears a second or a few of it."""

MAX_AUDIO_VALUES = 2**25
"""Most samples of one recording over all its channels: 128 MiB as float32, 87 seconds of 8 channels at 48 kHz."""

MAX_CHANNELS = 32
"""Most channels of a recording. A waveform of more is one whose axes were mixed up."""

RATES = (1_000, 384_000)
"""The least and the greatest number of samples a second. Telephones have 8,000, the best converters 384,000."""

LOUDEST = 4.0
"""Largest floating-point sample: 12 dB of headroom above full scale, which is 1. Integers stored as floating-point
numbers are far above."""

LEVELS_PER_SECOND = 100

LEVELS_AT_ONCE = 1000
"""Levels that are computed at a time: 10 s, 15 MB of them at the highest rate."""

UNKNOWN_SIZE = 0x7F000000
"""From here on, the size in a WAV's header says that the program that streamed it did not know it."""

Waveform = NDArray[np.float32]


class UnreadableAudioError(ValueError):
    """Bytes or samples are no recording, or one that can't be used; the message is to follow the name of the file."""


class AudioSupportError(RuntimeError):
    """The libraries that read sound are not installed."""

    def __init__(self) -> None:
        super().__init__(f"sound needs soundfile and soxr; {SPEECH_EXTRA}")


def require_audio() -> None:
    """Raise an AudioSupportError unless this installation reads sound."""
    if not reads_audio():
        raise AudioSupportError


def decode_audio(content: bytes, rate: int, samples: int) -> Waveform:
    """Decode one file of sound.

    Args:
        content: content of the file.
        rate: samples a second of the result.
        samples: number of samples of the result.

    Returns:
        [samples], where full scale is from -1 to 1; all zeros if the recording is silent.

    Raises:
        UnreadableAudioError: the content is no recording, or it is damaged, empty, too long, or has values that are no
            numbers.
        AudioSupportError: libraries are missing.
    """
    with _opened(content) as file:
        waveform = file.read(dtype="float32", always_2d=True)
        claimed, own_rate = file.frames, file.samplerate
    if len(waveform) != claimed:
        raise UnreadableAudioError("is damaged: it ends before its last sample")
    return fit_audio(waveform, own_rate, rate, samples)


def count_samples(content: bytes) -> int:
    """The number of samples over all channels that a file of sound claims to hold, none of which is decoded.

    Raises:
        UnreadableAudioError, AudioSupportError: as in `decode_audio`, from what its header says.
    """
    with _opened(content) as file:
        return int(file.frames) * int(file.channels)


def fit_audio(waveform: NDArray[Any], own_rate: int, rate: int, samples: int) -> Waveform:
    """Make of samples what `decode_audio` makes of a file of them.

    Args:
        waveform: [N] or [N, channels]; floating-point numbers from -1 to 1, or int16, int32 or uint8 as WAV files
            store them.
        own_rate: samples a second of the waveform.
        rate: samples a second of the result.
        samples: number of samples of the result.

    Raises:
        UnreadableAudioError: the waveform is empty or too long, or has another type or values that are no numbers.
        AudioSupportError: libraries are missing.
    """
    require_audio()
    if waveform.ndim not in (1, 2):
        raise UnreadableAudioError(f"has the shape {list(waveform.shape)}, not [samples] or [samples, channels]")
    channels = 1 if waveform.ndim == 1 else waveform.shape[1]
    _check_sizes(len(waveform), own_rate, channels)
    scaled = _scaled(waveform)
    mono = scaled.reshape(-1) if channels == 1 else scaled.mean(1)
    offset = np.float32(mono.mean(dtype=np.float64))
    return _resampled(_loudest_window(mono, offset, own_rate, samples / rate), own_rate, rate, samples)


def is_silent(waveform: Waveform) -> bool:
    """Whether a waveform of `decode_audio` has no sound at all."""
    return not waveform.any()


@contextmanager
def _opened(content: bytes) -> Iterator[Any]:
    """A file of sound as a `soundfile.SoundFile` whose header was checked; errors inside say that it is damaged."""
    require_audio()
    import soundfile

    if not content:
        raise UnreadableAudioError("is empty")
    if not any(content.startswith(each.beginnings) for each in AUDIO_FORMATS.values()):
        raise UnreadableAudioError(f"is not a readable recording ({audio_format_names()})")
    _check_whole(content)
    try:
        with soundfile.SoundFile(_Content(content)) as file:
            _check_header(file)
            yield file
    except UnreadableAudioError:
        raise
    except Exception as error:  # decoders of damaged files raise almost anything
        raise UnreadableAudioError(f"is damaged, or not a readable recording ({audio_format_names()})") from error


class _Content(BytesIO):
    """The content of a file, for libsndfile, which steps before the beginning of damaged files."""

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return super().seek(offset, whence)
        except ValueError:
            return self.tell()


def _check_whole(content: bytes) -> None:
    """Refuse a WAV file whose header claims more bytes than there are, which libsndfile passes over."""
    if content[:4] not in (b"RIFF", b"RIFX") or len(content) < 8:
        return
    claimed = int.from_bytes(content[4:8], "little" if content[:4] == b"RIFF" else "big")
    padding = 1  # a byte that some programs count and do not write
    if len(content) - 8 + padding < claimed < UNKNOWN_SIZE:
        raise UnreadableAudioError("is damaged: it ends before its last sample")


def _check_header(file: Any) -> None:
    """Refuse what an opened `soundfile.SoundFile` claims of itself, before it is decoded."""
    if not any(file.format in each.libsndfile for each in AUDIO_FORMATS.values()):
        raise UnreadableAudioError(f"is not a readable recording ({audio_format_names()})")
    _check_sizes(file.frames, file.samplerate, file.channels)


def _check_sizes(length: int, rate: int, channels: int) -> None:
    """Refuse a recording of `length` samples in each of its channels that has too few or too many."""
    if not 1 <= channels <= MAX_CHANNELS:
        raise UnreadableAudioError(f"has {channels:,} channels, not 1 to {MAX_CHANNELS}")
    if not RATES[0] <= rate <= RATES[1]:
        raise UnreadableAudioError(f"has {rate:,} samples a second, not {RATES[0]:,} to {RATES[1]:,}")
    if length < 1:
        raise UnreadableAudioError("has no samples")
    if length > MAX_AUDIO_SECONDS * rate:
        raise UnreadableAudioError(f"is longer than {MAX_AUDIO_SECONDS} seconds; cut it")
    if length * channels > MAX_AUDIO_VALUES:
        raise UnreadableAudioError(f"has more than {MAX_AUDIO_VALUES:,} samples over all channels; cut or mix it")


def _scaled(waveform: NDArray[Any]) -> Waveform:
    """Samples of full scale 1."""
    if waveform.dtype.kind == "f":
        _check_values(waveform)
        return np.asarray(waveform, np.float32)
    if waveform.dtype == np.uint8:
        return np.asarray((waveform.astype(np.float32) - 128) / 128)
    if waveform.dtype in (np.int16, np.int32):
        return waveform.astype(np.float32) / np.float32(2 ** (8 * waveform.dtype.itemsize - 1))
    raise UnreadableAudioError(f"has samples of type {waveform.dtype}, not floating-point, int16, int32 or uint8")


def _check_values(waveform: NDArray[Any]) -> None:
    if not np.isfinite(waveform).all():
        raise UnreadableAudioError("has samples that are no numbers")
    largest = float(max(waveform.max(), -waveform.min()))
    if largest > LOUDEST:
        raise UnreadableAudioError(f"has floating-point samples of up to {largest:g}; scale them to -1 to 1")


def _loudest_window(waveform: Waveform, offset: np.float32, rate: int, seconds: float) -> Waveform:
    """The part of a waveform [N] less its offset with the loudest middle, zeros where it reaches past the ends."""
    length = max(1, round(seconds * rate))
    places = max(1, round(seconds * LEVELS_PER_SECOND))
    levels = _levels(waveform, offset, rate)
    weights = 1 - ((np.arange(places) + 0.5) / places * 2 - 1) ** 2
    loudness = np.convolve(levels, weights)  # of each window that overlaps the recording at all
    first = int(loudness.argmax()) - places + 1
    start = first * rate // LEVELS_PER_SECOND
    window = np.zeros(length, np.float32)
    kept = waveform[max(start, 0) : max(start + length, 0)] - offset
    window[max(-start, 0) :][: len(kept)] = kept
    return window


def _levels(waveform: Waveform, offset: np.float32, rate: int) -> NDArray[np.float64]:
    """The level of each 10 ms of a waveform [N] less its offset; of 10 s at a time, to take little memory."""
    # A rate that is no multiple of 100 has some levels of one sample more.
    edges = np.arange(-(-len(waveform) * LEVELS_PER_SECOND // rate) + 1) * rate // LEVELS_PER_SECOND
    edges[-1] = len(waveform)
    levels = np.empty(len(edges) - 1)
    for first in range(0, len(levels), LEVELS_AT_ONCE):
        own = edges[first : first + LEVELS_AT_ONCE + 1]
        part = np.square(waveform[own[0] : own[-1]] - offset)
        levels[first : first + LEVELS_AT_ONCE] = np.add.reduceat(part, own[:-1] - own[0], dtype=np.float64)
    return np.sqrt(levels)


def _resampled(waveform: Waveform, own_rate: int, rate: int, samples: int) -> Waveform:
    """A waveform of `samples` samples at another rate."""
    import soxr

    heard = waveform if own_rate == rate else soxr.resample(waveform, own_rate, rate)
    result = np.zeros(samples, np.float32)
    result[: min(samples, len(heard))] = heard[:samples]
    return result
