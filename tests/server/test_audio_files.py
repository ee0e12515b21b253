"""Recordings in requests, as files and as waveforms."""

from io import BytesIO

import numpy as np
import pytest
import soundfile
from bundles import write_encoded
from encoders import audio_encoder
from wire import audio_files, images, inputs, texts, waveforms

from innerloop_learner.encoders import EncoderOptions, describe_encoder
from innerloop_learner.encoders.session import Computing
from innerloop_learner.media import MAX_AUDIO_SECONDS, decode_audio
from innerloop_learner.media import audio as audio_decoding
from innerloop_server.domain.errors import InvalidRequestError
from innerloop_server.domain.model_versions import ModelVersions
from innerloop_server.domain.models import ModelEntry, ModelState
from innerloop_server.engine.encoding import EncodingEngine
from innerloop_server.engine.interface import LoadError
from innerloop_server.engine.pytorch.engine import TorchEngine, TorchSettings
from innerloop_server.transport.codec import audio as audio_module
from innerloop_server.transport.codec.inputs import most_examples
from innerloop_server.transport.codec.requests import RequestLimits, decode_query
from innerloop_server.transport.codec.responses import encode_model

LIMITS = RequestLimits(support=40, query=40, time_to_live=60.0, max_time_to_live=600.0, message_bytes=2**20)
RATE, SAMPLES = 8000, 4000


def sound(seconds=0.4, rate=RATE, channels=1):
    """A tone in noise, int16 [N, channels]."""
    length = round(seconds * rate)
    tone = np.sin(np.arange(length)[:, None] * 2 * np.pi * 440 / rate) * np.linspace(0.2, 0.6, length)[:, None]
    noise = np.random.default_rng(0).normal(0, 0.02, (length, channels))
    return np.rint((tone + noise) * 32767).astype(np.int16)


def file(samples, rate=RATE, form="WAV"):
    buffer = BytesIO()
    soundfile.write(buffer, samples, rate, format=form)
    return buffer.getvalue()


@pytest.fixture
def model(fake_model):
    return fake_model(input_shape=(SAMPLES,), input_dtype="float32", input_kind="audio", sample_rate=RATE)


def violations(model, message):
    with pytest.raises(InvalidRequestError) as refused:
        decode_query(message, model, LIMITS)
    return dict(refused.value.violations)


def test_a_served_model_hears_what_training_would_have_heard(model):
    files = [file(sound(1.3)), file(sound(0.2, 44_100, 2), 44_100, "FLAC"), file(sound(rate=16_000), 16_000)]
    query = decode_query(audio_files(*files), model, LIMITS)
    assert (query.shape, query.dtype) == ((3, SAMPLES), np.float32)
    for heard, content in zip(query, files, strict=True):
        np.testing.assert_array_equal(heard, decode_audio(content, RATE, SAMPLES))


def test_a_waveform_is_heard_as_a_file_of_the_same_samples(model):
    recorded = sound(0.7, 22_050)
    by_file = decode_query(audio_files(file(recorded, 22_050)), model, LIMITS)
    by_samples = decode_query(waveforms((recorded[:, 0] / np.float32(32_768), 22_050)), model, LIMITS)
    np.testing.assert_allclose(by_samples, by_file, atol=1e-6)


def test_all_that_is_wrong_with_recordings_is_said_at_once(model):
    good = file(sound())
    empty = file(np.zeros((0, 1), np.int16))
    found = violations(model, audio_files(good, b"", b"text", good[:-2000], empty))
    assert list(found) == [f"query.audio_files.files[{index}]" for index in (1, 2, 3, 4)]
    assert found["query.audio_files.files[1]"] == "is empty"
    assert "is damaged" in found["query.audio_files.files[3]"]
    assert found["query.audio_files.files[4]"] == "has no samples"


def test_all_that_is_wrong_with_waveforms_is_said_at_once(model):
    fine = np.zeros(100, np.float32)
    wrong = (
        (fine, 0),
        (np.array([0.1, np.nan], np.float32), RATE),
        (fine[:0], RATE),
        (np.full(9, 3e4, np.float32), RATE),
    )
    message = waveforms((fine, RATE), *wrong)
    message.waveforms.values[0].samples += b"\0"
    assert violations(model, message) == {
        "query.waveforms.values[0]": "has 401 bytes of samples, which take 4 bytes each",
        "query.waveforms.values[1]": "has 0 samples a second, not 1,000 to 384,000",
        "query.waveforms.values[2]": "has samples that are no numbers",
        "query.waveforms.values[3]": "has no samples",
        "query.waveforms.values[4]": "has floating-point samples of up to 30000; scale them to -1 to 1",
    }


def test_sizes_are_looked_at_before_anything_is_decoded(model, monkeypatch):
    monkeypatch.setattr(audio_module, "decode_audio", None)
    long = file(np.zeros((301 * 1000, 1), np.int16), 1000, "FLAC")
    monkeypatch.setattr(audio_module, "MAX_SAMPLES_IN_ALL", 5000)
    found = violations(model, audio_files(file(sound()), file(sound())))
    assert found == {"query.audio_files.files": "hold more than 5,000 samples in all; send fewer"}
    assert violations(model, audio_files(long))["query.audio_files.files[0]"].startswith("is longer than 300 seconds")


def test_no_more_recordings_are_taken_than_there_is_memory_for(model, monkeypatch):
    monkeypatch.setattr(audio_module, "MAX_HEARD_SAMPLES", 2 * SAMPLES)
    assert most_examples(40, model.description) == 2
    found = violations(model, audio_files(*[file(sound())] * 3))
    assert found == {"query.audio_files.files": "has 3 examples, at most 2 are accepted"}
    entry = ModelEntry("heard", ModelState.READY, model.description)
    described = encode_model(ModelVersions("heard", (entry,)), entry, LIMITS)
    assert (described.limits.max_query, described.limits.max_audio_seconds) == (2, MAX_AUDIO_SECONDS)


def test_what_a_model_does_not_take_is_refused(model, fake_model):
    takes = "this model takes audio: files, or samples with their rate"
    for message in (texts("Hi"), images(b"file"), inputs(np.zeros((1, SAMPLES), np.float32))):
        assert list(violations(model, message).values()) == [takes]
    pictures = fake_model(input_shape=(1, 8, 8))
    for message in (audio_files(file(sound())), waveforms((np.zeros(9, np.float32), RATE))):
        assert list(violations(pictures, message).values()) == ["this model takes no audio, its inputs are [1, 8, 8]"]


def test_a_server_without_the_libraries_of_sound_refuses_models_of_audio(tmp_path, monkeypatch):
    hears = EncoderOptions(rate=RATE, shape=(SAMPLES,), pooling="mean")
    write_encoded(tmp_path / "sounds", "protonet", describe_encoder(audio_encoder(), None, hears))
    monkeypatch.setattr(audio_decoding, "reads_audio", lambda: False)
    engine = EncodingEngine(TorchEngine(TorchSettings("cpu", lanes=1)), Computing(1))
    with pytest.raises(LoadError, match=r"sounds: sound needs soundfile and soxr; pip install \"innerloop\[speech\]\""):
        engine.load("sounds", tmp_path / "sounds")
