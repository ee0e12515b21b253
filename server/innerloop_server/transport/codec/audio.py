"""Recordings of requests, as files or as waveforms, to arrays: made by what makes them in training."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from innerloop.v1 import tensor_pb2
from innerloop_learner.media import UnreadableAudioError, count_samples, decode_audio, fit_audio
from innerloop_server.transport.codec.turns import turn
from innerloop_server.transport.codec.violations import MOST_NAMED, Violations

MAX_SAMPLES_IN_ALL = 1_000_000_000
"""Most samples of all recordings of one request together, over all channels: 17 hours at 16 kHz. Decoding takes a core
10 to 50 ns for each."""

MAX_HEARD_SAMPLES = 2**25
"""Most samples that a model hears of one request: 128 MiB as float32, 35 minutes at 16 kHz."""

SAMPLE = np.dtype("<f4")

R = TypeVar("R")


def most_recordings(most: int, samples: int) -> int:
    """Most recordings of one request, where `most` examples are accepted and the model hears `samples` of each."""
    return min(most, max(1, MAX_HEARD_SAMPLES // samples))


def decode_audio_files(
    files: Sequence[bytes], field: str, rate: int, samples: int, violations: Violations
) -> NDArray[np.float32] | None:
    """Recordings [N, samples] from files of sound.

    Args:
        files: contents, at most as many as `most_recordings` says.
        field: path of the repeated field, for violations.
        rate: samples a second that the model hears.
        samples: number of samples that it hears.
        violations: receives what is wrong.

    Returns:
        None when something is wrong.
    """
    return _decode(files, field, samples, count_samples, lambda file: decode_audio(file, rate, samples), violations)


def decode_waveforms(
    waveforms: Sequence[tensor_pb2.Waveform], field: str, rate: int, samples: int, violations: Violations
) -> NDArray[np.float32] | None:
    """Recordings [N, samples] from waveforms; arguments and result as those of `decode_audio_files`."""

    def decode(waveform: tensor_pb2.Waveform) -> NDArray[np.float32]:
        return fit_audio(np.frombuffer(waveform.samples, SAMPLE), waveform.sample_rate, rate, samples)

    return _decode(waveforms, field, samples, _count_samples_of, decode, violations)


def _count_samples_of(waveform: tensor_pb2.Waveform) -> int:
    size = len(waveform.samples)
    if size % SAMPLE.itemsize:
        raise UnreadableAudioError(f"has {size} bytes of samples, which take {SAMPLE.itemsize} bytes each")
    return size // SAMPLE.itemsize


def _decode(
    recordings: Sequence[R],
    field: str,
    samples: int,
    count: Callable[[R], int],
    decode: Callable[[R], NDArray[np.float32]],
    violations: Violations,
) -> NDArray[np.float32] | None:
    """Recordings [N, samples], whose sizes are looked at before memory is taken for any of them."""
    unreadable: dict[int, str] = {}
    sizes: list[int] = []
    for index, recording in enumerate(recordings):
        try:
            sizes.append(count(recording))
        except UnreadableAudioError as error:
            sizes.append(0)
            unreadable[index] = str(error)
    if sum(sizes) > MAX_SAMPLES_IN_ALL:
        violations.add(field, f"hold more than {MAX_SAMPLES_IN_ALL:,} samples in all; send fewer")
        return None
    heard = np.empty((len(recordings), samples), np.float32)
    for index, recording in enumerate(recordings):
        if len(unreadable) >= MOST_NAMED:
            break
        if index not in unreadable:
            try:
                with turn(sizes[index]):
                    heard[index] = decode(recording)
            except UnreadableAudioError as error:
                unreadable[index] = str(error)
    for index, why in sorted(unreadable.items())[:MOST_NAMED]:
        violations.add(f"{field}[{index}]", why)
    return None if unreadable else heard
