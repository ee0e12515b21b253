"""Which forms of recordings the SDK takes, and what of them goes over the wire."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from twins import collect

from innerloop import InvalidArgumentError
from innerloop.v1 import model_pb2

LABELS = ["a", "b"]
SOUND = np.linspace(-0.5, 0.5, 7, dtype=np.float32)


@pytest.fixture(autouse=True)
def _model_of_audio(server):
    server.models["sounds"] = model_pb2.Model(
        name="sounds", input_kind=model_pb2.INPUT_KIND_AUDIO, input_shape=[16_000], sample_rate=16_000
    )


def waveforms(inputs):
    """Samples and rates as they travelled."""
    return [(np.frombuffer(each.samples, "<f4"), each.sample_rate) for each in inputs.waveforms.values]


async def test_files_travel_as_they_are_to_a_model_that_takes_audio(client, server, tmp_path):
    file = tmp_path / "a.wav"
    file.write_bytes(b"sound")
    with file.open("rb") as opened:
        forms = [file, str(file), b"sound", BytesIO(b"sound"), opened]
        adaptation = await client.adapt("sounds", forms, range(5))
    await adaptation.predict([str(file)])
    await collect(adaptation.predict_stream([[file], [b"sound"]]))
    (adapted,), (asked,) = server.requests("Adapt"), server.requests("Predict")
    assert list(adapted.support.inputs.audio_files.files) == [b"sound"] * 5
    assert list(asked.query.audio_files.files) == [b"sound"]
    assert [list(each.query.audio_files.files) for each in server.requests("query")] == [[b"sound"]] * 2
    assert len(server.requests("GetModel")) == 1


@pytest.mark.parametrize(
    ("recording", "expected"),
    [
        (SOUND, SOUND),
        (SOUND.astype(np.float64), SOUND),
        (np.stack([SOUND, SOUND / 2], axis=1), SOUND * 0.75),
        (np.array([-(2**15), 0, 2**14], np.int16), [-1, 0, 0.5]),
        (np.array([-(2**31), 2**30], np.int32), [-1, 0.5]),
        (np.array([0, 128, 192], np.uint8), [-1, 0, 0.5]),
        ([0.25, -0.25], [0.25, -0.25]),
    ],
    ids=["float32", "float64", "two channels", "int16", "int32", "uint8", "a list"],
)
async def test_samples_travel_as_waveforms_of_one_channel(client, server, recording, expected):
    await client.adapt("sounds", [recording, SOUND[:3]], LABELS, rate=44_100)
    (request,) = server.requests("Adapt")
    (first, rate), (second, _) = waveforms(request.support.inputs)
    np.testing.assert_allclose(first, expected, rtol=1e-6)
    np.testing.assert_array_equal(second, SOUND[:3])
    assert rate == 44_100
    assert not server.requests("GetModel")


async def test_every_way_to_ask_takes_samples(client, server):
    both = np.stack([SOUND, -SOUND])
    adaptation = await client.adapt("sounds", both, LABELS, rate=8000)
    await adaptation.predict(both, rate=8000)
    await collect(adaptation.predict_stream([both[:1], both], rate=8000))
    await client.adapt_predict("sounds", both, LABELS, query=both[:1], rate=8000)
    (asked,), (at_once,) = server.requests("Predict"), server.requests("AdaptPredict")
    sent = [asked.query, *(each.query for each in server.requests("query")), at_once.support.inputs, at_once.query]
    assert [len(waveforms(each)) for each in sent] == [2, 1, 2, 2, 1]
    assert {rate for each in sent for _, rate in waveforms(each)} == {8000}


@pytest.mark.parametrize(
    ("recordings", "rate", "message"),
    [
        ([SOUND, SOUND[:3]], None, "recordings of different lengths are sent with their rate, rate=16000"),
        (SOUND, 8000, "'a'.* is a single number; put a recording's samples into an array"),
        (
            [SOUND, np.zeros((2, 33))],
            8000,
            r"'b'\) has the shape \(2, 33\); a recording is \[samples\] or \[samples, ch",
        ),
        ([SOUND, SOUND[:0]], 8000, r"'b'\) has no samples"),
        ([SOUND, SOUND * np.nan], 8000, r"'b'\) holds NaN"),
        ([SOUND, np.arange(3)], 8000, r"'b'\) has samples of type int64; floating-point numbers from -1 to 1, int16"),
        ([SOUND, Path("a.wav")], 8000, "rate is that of arrays of samples, and .*'b'.* is a file, which says its own"),
        ([SOUND, SOUND], 0, "rate is a whole number of samples a second, such as 16000; not 0"),
        ([SOUND, SOUND], "fast", "not 'fast'"),
        ([Path("lost.wav"), b"file"], None, "can't read 'lost.wav': No such file"),
    ],
)
async def test_what_can_not_be_sent_is_refused_with_a_reason(client, server, recordings, rate, message):
    with pytest.raises(InvalidArgumentError, match=message):
        await client.adapt("sounds", recordings, LABELS, rate=rate)
    assert not server.requests("Adapt")


async def test_a_model_says_what_it_hears(client):
    model = await client.model("sounds")
    assert (model.input_kind, model.input_shape, model.sample_rate) == ("audio", (16_000,), 16_000)
