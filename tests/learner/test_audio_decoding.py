import io
import struct
import sys
from itertools import count
from typing import Any

import numpy as np
import pytest
import soundfile

from innerloop_learner.media import AudioSupportError, UnreadableAudioError, decode_audio, fit_audio, is_silent
from innerloop_learner.media.audio import MAX_AUDIO_SECONDS
from innerloop_learner.media.audio_formats import AUDIO_FORMATS, reads_audio

RATE = 16_000


def encoded(waveform: Any, rate: int = RATE, **options: Any) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, rate, **{"format": "WAV", "subtype": "FLOAT", **options})
    return buffer.getvalue()


def tone(rate: int = RATE, seconds: float = 0.25, hertz: float = 440) -> np.ndarray:
    """A tone that swells and fades [N]."""
    time = np.arange(round(rate * seconds)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * time) * np.sin(np.pi * time / seconds) ** 2).astype(np.float32)


def header(rate: int = RATE, channels: int = 1, frames: int = 100, claimed: int | None = None) -> bytes:
    """A 16-bit WAV with any numbers in its header, and `frames` frames of noise behind it."""
    data = np.random.default_rng(0).integers(-999, 999, frames * channels, dtype=np.int16).tobytes()
    size = len(data) if claimed is None else claimed
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2 & 0xFFFFFFFF, channels * 2 & 0xFFFF, 16)
    riff = min(36 + size, 0xFFFFFFFF)
    head = b"RIFF" + struct.pack("<I", riff) + b"WAVEfmt " + struct.pack("<I", 16) + form
    return head + b"data" + struct.pack("<I", size) + data


def flac_that_claims(frames: int) -> bytes:
    """A short FLAC file whose header claims another number of frames (36 bits at the end of bytes 18 to 25)."""
    content = bytearray(encoded(tone(), format="FLAC", subtype="PCM_16"))
    packed = int.from_bytes(content[18:26], "big")
    content[18:26] = (packed >> 36 << 36 | frames).to_bytes(8, "big")
    return bytes(content)


@pytest.mark.parametrize(
    ("file_format", "subtype", "tolerance"),
    [
        ("WAV", "PCM_U8", 0.01),
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "PCM_32", 1e-6),
        ("WAV", "DOUBLE", 1e-6),
        ("WAV", "ULAW", 0.05),
        ("WAVEX", "PCM_16", 1e-4),
        ("RF64", "PCM_16", 1e-4),
        ("FLAC", "PCM_16", 1e-4),
        ("FLAC", "PCM_24", 1e-6),
        ("OGG", "VORBIS", 0.1),
        ("OGG", "OPUS", 0.1),
    ],
)
def test_every_listed_format_and_depth_gives_the_samples_that_were_written(
    file_format: str, subtype: str, tolerance: float
) -> None:
    assert file_format in {name for each in AUDIO_FORMATS.values() for name in each.libsndfile}
    waveform = tone(seconds=0.5)
    heard = decode_audio(encoded(waveform, format=file_format, subtype=subtype), RATE, RATE)
    assert np.abs(heard - fit_audio(waveform, RATE, RATE, RATE)).max() <= tolerance


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000, 192_000])
def test_any_rate_and_number_of_channels_gives_the_same_waveform(rate: int, channels: int) -> None:
    expected = fit_audio(tone(), RATE, RATE, RATE)
    content = encoded(np.repeat(tone(rate)[:, None], channels, axis=1), rate)
    heard = decode_audio(content, RATE, RATE)
    assert heard.shape == (RATE,)
    assert heard.dtype == np.float32
    # At 11,025 a second, the window begins up to one sample beside where it begins at other rates.
    assert np.abs(heard - expected).max() < (0.01 if rate % 100 == 0 else 0.15)


def test_a_sound_is_found_in_the_middle_whatever_silence_surrounds_it() -> None:
    bare = fit_audio(tone(), RATE, RATE, RATE)
    assert abs(int(np.abs(bare).argmax()) - RATE // 2) < RATE // 20
    for before, after in [(0, 3), (0.5, 0.5), (4, 0.1), (20, 20)]:
        surrounded = np.concatenate([np.zeros(round(before * RATE)), tone(), np.zeros(round(after * RATE))])
        np.testing.assert_allclose(fit_audio(surrounded, RATE, RATE, RATE), bare, atol=1e-4)


def test_the_loudest_of_several_sounds_is_kept() -> None:
    faint, silence = 0.3 * tone(hertz=2_000), np.zeros(2 * RATE)
    recording = np.concatenate([faint, silence, tone(), silence, faint])
    np.testing.assert_allclose(fit_audio(recording, RATE, RATE, RATE), fit_audio(tone(), RATE, RATE, RATE), atol=1e-3)


def test_an_offset_and_other_types_of_samples_change_nothing() -> None:
    waveform = tone()
    expected = fit_audio(waveform, RATE, RATE, RATE)
    np.testing.assert_allclose(fit_audio(waveform + 0.25, RATE, RATE, RATE), expected, atol=1e-6)
    for scaled, tolerance in [
        (waveform.astype(np.float64), 1e-6),
        (np.rint(waveform * 2**15).astype(np.int16), 1e-4),
        (np.rint(waveform * 2.0**31).astype(np.int32), 1e-6),
        (np.rint(waveform * 128 + 128).astype(np.uint8), 0.01),
    ]:
        assert np.abs(fit_audio(scaled, RATE, RATE, RATE) - expected).max() <= tolerance


def test_silence_and_a_constant_are_silent_and_a_single_sample_is_read() -> None:
    for waveform in (np.zeros(RATE), np.full(RATE, 0.3), np.full((RATE, 3), -0.7, np.float32), np.ones(1)):
        assert is_silent(fit_audio(waveform, RATE, RATE, RATE))
    assert not is_silent(fit_audio(tone(), RATE, RATE, RATE))
    assert fit_audio(tone(), RATE, RATE, 1).shape == (1,)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"not a recording", r"is not a readable recording \(WAV, FLAC, OGG\)"),
        (encoded(tone(), format="AIFF", subtype="PCM_16"), "is not a readable recording"),
        (encoded(tone())[:40], "is damaged"),
        (encoded(tone())[:2_000], "ends before its last sample"),
        (encoded(tone(), format="FLAC", subtype="PCM_16")[:40], "is damaged"),
        (encoded(tone(), format="FLAC", subtype="PCM_16")[:900], "is damaged"),
        (encoded(tone(), format="OGG", subtype="VORBIS")[:60], "is damaged"),
        (encoded(tone(seconds=2), format="OGG", subtype="VORBIS")[:-200], "has no samples"),
        (encoded(np.zeros(0)), "has no samples"),
        (header(frames=0), "has no samples"),
        (header(rate=1), "has 1 samples a second, not 1,000 to 384,000"),
        (header(rate=1_000_000_000), "has 1,000,000,000 samples a second"),
        (header(channels=4_096, frames=1), "is damaged|channels"),
        (header(channels=64), "has 64 channels, not 1 to 32"),
        (header(channels=0), "is damaged"),
        (header(claimed=2**30), "ends before its last sample"),
        (flac_that_claims(2**36 - 1), f"is longer than {MAX_AUDIO_SECONDS} seconds"),
        (flac_that_claims(RATE * 200), "is damaged"),
        (encoded(np.zeros(1_000 * 301), 1_000), "is longer than 300 seconds; cut it"),
        (encoded(np.full(99, np.nan)), "has samples that are no numbers"),
        (encoded(np.full(99, np.inf)), "has samples that are no numbers"),
        (encoded(np.full(99, 32_767.0)), "has floating-point samples of up to 32767; scale them to -1 to 1"),
    ],
    ids=count(),  # some files hold the time or a random number, and names of tests must be the same in all processes
)
def test_what_is_no_usable_recording_is_refused(content: bytes, said: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnreadableAudioError, match=said):
        decode_audio(content, RATE, RATE)
    assert capfd.readouterr() == ("", "")


def test_a_file_that_was_streamed_and_does_not_know_its_length_is_read() -> None:
    assert not is_silent(decode_audio(header(claimed=0xFFFFFFFF - 36), RATE, RATE))


@pytest.mark.parametrize(
    ("waveform", "said"),
    [
        (np.zeros((2, 2, 2)), r"has the shape \[2, 2, 2\], not \[samples\] or \[samples, channels\]"),
        (np.zeros((2, RATE)), "has 16,000 channels"),
        (np.zeros(9, np.int64), "has samples of type int64"),
        (np.zeros(9, bool), "has samples of type bool"),
        (np.zeros(0), "has no samples"),
        (np.zeros((RATE * 100, 32), np.int16), "has more than 33,554,432 samples over all channels"),
    ],
)
def test_samples_that_are_no_waveform_are_refused(waveform: np.ndarray, said: str) -> None:
    with pytest.raises(UnreadableAudioError, match=said):
        fit_audio(waveform, RATE, RATE, RATE)


def test_missing_libraries_are_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soxr", None)
    reads_audio.cache_clear()
    try:
        with pytest.raises(AudioSupportError, match=r'pip install "innerloop\[speech\]"'):
            fit_audio(tone(), RATE, RATE, RATE)
    finally:
        reads_audio.cache_clear()
