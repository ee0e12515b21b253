import sys

import numpy as np
import pytest

from innerloop_learner.encoders import EncoderError, open_encoder
from innerloop_learner.encoders.session import Computing
from innerloop_trainer.encoders.spectrogram import MELS, mel_weights, spectrogram_encoder, spectrogram_graph

COMPUTING = Computing(threads=1)


def hertz(mel: float) -> float:
    return 700 * (10 ** (mel / 2595) - 1)


def mel(frequency: float) -> float:
    return 2595 * float(np.log10(1 + frequency / 700))


def expected(waveform: np.ndarray, rate: int) -> np.ndarray:
    """The spectrogram [MELS, frames] in float64, by a fast Fourier transform and triangles point by point."""
    window, hop = round(rate / 40), round(rate / 100)
    hann = np.hanning(window + 1)[:-1]
    top = min(rate / 2, 20_000)
    edges = [hertz(mel(60) + (mel(top) - mel(60)) * step / (MELS + 1)) for step in range(MELS + 2)]
    columns = []
    for start in range(0, len(waveform) - window + 1, hop):
        power = np.abs(np.fft.rfft(waveform[start : start + window].astype(np.float64) * hann)) ** 2
        frequencies = np.fft.rfftfreq(window, 1 / rate)
        columns.append(
            [power @ np.interp(frequencies, edges[band : band + 3], [0.0, 1.0, 0.0]) for band in range(MELS)]
        )
    decibels = 10 * np.log10(np.maximum(np.array(columns).T, 1e-10))
    return np.maximum(decibels - decibels.max(), -40) / 20 + 1


@pytest.mark.parametrize(("rate", "samples"), [(8_000, 8_000), (16_000, 16_000), (11_025, 9_999), (48_000, 24_000)])
def test_the_graph_computes_a_log_mel_spectrogram(rate: int, samples: int) -> None:
    random, time = np.random.default_rng(0), np.arange(samples) / rate
    waveform = (0.2 * np.sin(2 * np.pi * (300 + 2_000 * time) * time) + random.normal(0, 1e-2, samples)).astype(
        np.float32
    )
    encoder = spectrogram_encoder(rate, samples, COMPUTING)
    (found,) = encoder.encode(waveform[None])
    reference = expected(waveform, rate)
    assert found.shape == encoder.spec.output_shape == (1, *reference.shape)
    np.testing.assert_allclose(found[0], reference, atol=1e-3)


def test_loudness_changes_nothing_and_silence_gives_numbers() -> None:
    waveform = np.random.default_rng(0).normal(0, 0.1, 8_000).astype(np.float32)
    encoder = spectrogram_encoder(8_000, 8_000, COMPUTING)
    loud, faint, silent = encoder.encode(np.stack([waveform, waveform / 30, np.zeros(8_000, np.float32)]))
    np.testing.assert_allclose(loud, faint, atol=1e-3)
    assert np.isfinite(silent).all()
    assert -1 <= loud.min() < loud.max() == pytest.approx(1, abs=1e-6)


def test_every_band_hears_something_at_every_rate() -> None:
    for rate in (1_000, 4_000, 8_000, 22_050, 96_000, 384_000):
        weights = mel_weights(rate, round(0.025 * rate))
        assert (weights.sum(1) > 0).all() or rate < 4_000, rate
        assert weights.shape[1] <= 501


def test_equal_settings_give_equal_files_that_open_again() -> None:
    assert spectrogram_graph(8_000, 800) == spectrogram_graph(8_000, 800)
    encoder = spectrogram_encoder(8_000, 800, COMPUTING)
    again = open_encoder(encoder.spec, encoder.files, COMPUTING)
    probe = encoder.probe()
    np.testing.assert_array_equal(encoder.encode(probe), again.encode(probe))
    assert again.digest == encoder.digest


def test_recordings_that_are_too_short_and_a_missing_library_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EncoderError, match=r"99 samples at 8,000 Hz are too short .*25 ms; ask for more \?seconds="):
        spectrogram_encoder(8_000, 99, COMPUTING)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(EncoderError, match=r'spectrograms need onnx; pip install "innerloop\[speech\]"'):
        spectrogram_encoder(8_000, 800, COMPUTING)
