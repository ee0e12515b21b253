"""Models behind frozen encoders: strings and images in, the answers that encoder and learner give without a server."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from time import perf_counter

import numpy as np
import pytest
import soundfile
import torch
from bundles import a_calibration, write_encoded
from encoders import IMAGE_FEATURES, SIZE, WORDS, audio_encoder, image_encoder, slow_encoder, token_encoder, tokenizer
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from PIL import Image
from running import wait_until
from wire import images, inputs
from wire import texts as texts_message

from innerloop import AsyncClient, Client, InvalidArgumentError
from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1.model_pb2 import INPUT_KIND_AUDIO, INPUT_KIND_TENSOR, INPUT_KIND_TEXT, GetModelRequest
from innerloop_learner import Query, Support
from innerloop_learner.bundle import load_bundle, save_bundle
from innerloop_learner.calibration import probabilities
from innerloop_learner.diagnosis import doubts_of
from innerloop_learner.encoders import MAX_TEXT_BYTES, EncoderOptions, describe_encoder, open_encoder, pack_texts
from innerloop_learner.media import MAX_AUDIO_SECONDS, decode_audio
from innerloop_trainer.onnx_export.graphs import export_graphs
from innerloop_trainer.untrained import HeadOptions, write_untrained

pytestmark = [pytest.mark.with_and_without_front_ends, pytest.mark.rarely("alone")]

LABELS = ["lost", "rate", "lost", "rate", "top-up"]
TEXTS = ["my card was lost", "which exchange rate", "card stolen", "euro rate", "top up failed again and again"]
RATE, SAMPLES = 8000, 2000
QUERIES = ["lost", "what is the rate of euro", "why has my top up failed", "?", "naïve ☃"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Bundles of texts ("sure" is calibrated), "pictures" and "slow" of 1 x 8 x 8, "sounds", and "broken"."""
    folder = tmp_path_factory.mktemp("models")
    texts = describe_encoder(token_encoder(mask=True), tokenizer(), EncoderOptions())
    pictures = describe_encoder(image_encoder(), None, EncoderOptions(mean=(0.5,), std=(0.3,)))
    write_encoded(folder / "intents", "protonet", texts)
    write_encoded(folder / "steps", "anil", texts, steps=3, max_steps=10, rate=0.5)
    write_encoded(folder / "pictures", "protonet", pictures)
    hears = EncoderOptions(rate=RATE, shape=(SAMPLES,), pooling="mean")
    write_encoded(folder / "sounds", "protonet", describe_encoder(audio_encoder(), None, hears))
    write_encoded(folder / "slow", "protonet", describe_encoder(slow_encoder(), None, EncoderOptions()))
    write_untrained(folder / "untrained", "untrained", texts, HeadOptions("lr-d2"))
    write_encoded(folder / "sure", "protonet", texts)
    plain = load_bundle(folder / "sure")
    save_bundle(folder / "sure", replace(plain.manifest, calibration=a_calibration()), plain.params, plain.files)
    write_encoded(folder / "broken", "protonet", texts)
    (folder / "broken" / "encoder.onnx").write_bytes(b"altered")
    return folder


@pytest.fixture(scope="module")
def server(start_server, folder):
    with start_server(folder) as server:
        yield server


def offline(path, raw, labels, queries):
    """Probabilities [Q, ways] of a bundle without a server, its classes sorted by name."""
    bundle = load_bundle(path)
    encoder = open_encoder(bundle.manifest.encoder, bundle.files)
    classes = sorted(set(labels))
    x, asked = (torch.from_numpy(encoder.encode(each)).unsqueeze(0) for each in (raw, queries))
    y = torch.tensor([[classes.index(label) for label in labels]])
    learner, present = bundle.learner, torch.ones(y.shape, dtype=torch.bool)
    given = Support(x, y, present, torch.tensor([len(classes)]), learner.padded_ways(len(classes)))
    state = learner.adapt(bundle.params, given).state
    with torch.no_grad():
        logits = learner.predict(bundle.params, state, Query(asked, torch.ones(asked.shape[:2], dtype=torch.bool)))
    return logits[0, :, : len(classes)].softmax(-1).numpy()


@pytest.mark.parametrize("model", ["intents", "steps", "untrained"])
def test_strings_are_answered_as_without_a_server(server, folder, model):
    expected = offline(folder / model, pack_texts(TEXTS), LABELS, pack_texts(QUERIES))
    with Client(server.target) as client:
        adaptation = client.adapt(model, TEXTS, LABELS)
        answers = adaptation.predict(QUERIES)
        once = client.adapt_predict(model, np.array(TEXTS), LABELS, query=(text for text in QUERIES))
        streamed = list(adaptation.predict_stream([text] for text in QUERIES))
    for found in (answers, once):
        assert tuple(found.classes) == ("lost", "rate", "top-up")
        np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([each.probabilities for each in streamed]), expected, atol=1e-5)


def test_a_calibrated_model_says_how_sure_its_answers_are(server, folder):
    with Client(server.target) as client:
        answers = client.adapt("sure", TEXTS, LABELS).predict(QUERIES, return_logits=True, coverage=0.9)
    expected = probabilities(answers.logits, a_calibration().tasks[0])
    np.testing.assert_allclose(answers.probabilities, expected, atol=1e-5)
    raw = offline(folder / "sure", pack_texts(TEXTS), LABELS, pack_texts(QUERIES))
    assert np.abs(answers.probabilities - raw).max() > 1e-3
    assert all(0 <= answer.known <= 1 for answer in answers)


@pytest.mark.parametrize("model", ["intents", "steps", "untrained"])
def test_strings_of_any_length_are_learned_later_as_if_they_had_been_there_before(server, folder, model):
    shortest = sorted(range(len(TEXTS)), key=lambda place: len(TEXTS[place]))
    texts, labels = [TEXTS[place] for place in shortest], [LABELS[place] for place in shortest]
    expected = offline(folder / model, pack_texts(texts), labels, pack_texts(QUERIES))
    first = next(count for count in range(len(labels)) if len(set(labels[:count])) == 2)
    with Client(server.target) as client:
        adaptation = client.adapt(model, texts[:first], labels[:first])
        adaptation.add(texts[first:], labels[first:])
        answers = adaptation.predict(QUERIES)
    found = np.stack([[each.probabilities[label] for label in sorted(set(labels))] for each in answers])
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.rarely("alone")
@pytest.mark.parametrize(
    "model",
    ["steps", pytest.param("pictures", marks=pytest.mark.slow), pytest.param("sounds", marks=pytest.mark.slow)],
)
def test_the_engine_behind_an_encoder_may_be_onnx_runtime(start_server, folder, tmp_path, model):
    pictures = np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8), dtype=np.uint8)
    recordings = [wav(sound(100 * (1 + way), 0.2)) for way in range(5)]
    examples, raw = {
        "steps": (TEXTS, pack_texts(TEXTS)),
        "pictures": (pictures, pictures),
        "sounds": (recordings, np.stack([decode_audio(each, RATE, SAMPLES) for each in recordings])),
    }[model]
    bundle = load_bundle(folder / model)
    graphs, files = export_graphs(bundle)
    save_bundle(tmp_path / model, replace(bundle.manifest, graphs=graphs), bundle.params, {**bundle.files, **files})
    with start_server(tmp_path, backend="onnxruntime") as server, Client(server.target) as client:
        found = client.adapt_predict(model, examples, LABELS, query=examples)
    np.testing.assert_allclose(found.probabilities, offline(folder / model, raw, LABELS, raw), atol=1e-5)


async def test_the_asynchronous_client_sends_strings_too(server, folder):
    expected = offline(folder / "intents", pack_texts(TEXTS), LABELS, pack_texts(QUERIES))
    async with AsyncClient(server.target) as client:
        adaptation = await client.adapt("intents", TEXTS, LABELS)
        np.testing.assert_allclose((await adaptation.predict(QUERIES)).probabilities, expected, atol=1e-5)
        streamed = [each.probabilities async for each in adaptation.predict_stream([QUERIES[:2], QUERIES[2:]])]
    np.testing.assert_allclose(np.concatenate(streamed), expected, atol=1e-5)


def test_arrays_and_files_of_images_are_encoded(server, folder):
    random = np.random.default_rng(0)
    given, asked = (random.integers(0, 256, (count, 1, 8, 8), dtype=np.uint8) for count in (5, 7))
    expected = offline(folder / "pictures", given, LABELS, asked)
    with Client(server.target) as client:
        adaptation = client.adapt("pictures", given, LABELS)
        for form in (asked, asked.astype(np.float32), [Image.fromarray(image[0]) for image in asked]):
            np.testing.assert_allclose(adaptation.predict(form).probabilities, expected, atol=1e-5)


def test_the_time_of_the_encoder_is_a_phase_and_a_metric_of_its_own(server, metrics):
    def count(name, **labels):
        return metrics(f"innerloop_{name}_duration_seconds_count", model="steps", **labels)

    before = count("encoder"), count("phase", phase="encoder"), count("phase", phase="adapt")
    with Client(server.target) as client:
        adaptation = client.adapt("steps", TEXTS, LABELS)
        timings = [adaptation.info.timings, adaptation.predict(QUERIES).timings]
        adapted, predicted, encoder = zip(*((each.adapt, each.predict, each.encoder) for each in timings), strict=True)
        plain = client.adapt_predict("steps", TEXTS, LABELS, query=QUERIES).timings
    assert all(encoder), "both calls have inputs to encode"
    assert adapted[0] > 0 < predicted[1]
    assert plain.encoder > 0 < plain.adapt
    wait_until(lambda: count("encoder") == before[0] + 3)
    assert count("phase", phase="encoder") == before[1] + 3
    assert count("phase", phase="adapt") == before[2] + 2


@pytest.mark.parametrize("model", ["steps", "pictures", "sure"])
def test_a_diagnosis_encodes_each_example_once(server, metrics, model):
    random = np.random.default_rng(5)
    x = random.integers(0, 256, (5, 1, 8, 8), np.uint8) if model == "pictures" else TEXTS
    labels = list("aabba")
    with Client(server.target) as client:
        before = metrics("innerloop_encoder_duration_seconds_count", model=model)
        found = client.adapt(model, x, labels, diagnose=True).diagnosis
        wait_until(lambda: metrics("innerloop_encoder_duration_seconds_count", model=model) == before + 2)
        for place, label in enumerate(labels):
            others = [each for each in range(5) if each != place]
            (answer,) = client.adapt_predict(
                model, [x[each] for each in others], [labels[each] for each in others], query=[x[place]]
            )
            doubt = doubts_of(np.float64(answer.probabilities[label]), 2)
            assert found.doubts[place] == pytest.approx(doubt, rel=1e-3, abs=1e-4)


def test_an_encoder_at_work_keeps_nobody_else_waiting(server, client):
    request = GetModelRequest(model="slow")
    health = HealthStub(client.channel)
    longest, answered = 0.0, 0
    with Client(server.target) as sdk, ThreadPoolExecutor(1) as thread:
        images = np.zeros((5, 1, 8, 8), np.uint8)
        slow = thread.submit(lambda: sdk.adapt_predict("slow", images, LABELS, query=images).timings.encoder)
        while not slow.done():
            started = perf_counter()
            client.models.GetModel(request)
            health.Check(HealthCheckRequest())
            longest = max(longest, perf_counter() - started)
            answered += 1
    assert answered > 5
    assert longest < slow.result() / 2


def sound(pitch, seconds=0.3, rate=RATE):
    """A tone that swells and fades, so that its loudest place is known: int16."""
    moments = np.arange(round(seconds * rate)) / rate
    tone = np.sin(2 * np.pi * pitch * moments) * np.sin(np.pi * moments / seconds)
    return np.rint(20_000 * tone).astype(np.int16)


def wav(samples, rate=RATE):
    buffer = BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV")
    return buffer.getvalue()


def test_recordings_are_answered_as_without_a_server(server, folder, tmp_path):
    given = [wav(sound(100 * (1 + way), 0.2 + 0.05 * way)) for way in range(5)]
    recorded = [sound(150, 0.5, 16_000), sound(450, 0.1, 16_000)]
    files = [wav(each, 16_000) for each in recorded]
    x, asked = (np.stack([decode_audio(each, RATE, SAMPLES) for each in some]) for some in (given, files))
    expected = offline(folder / "sounds", x, LABELS, asked)
    (tmp_path / "a.wav").write_bytes(files[0])
    with Client(server.target) as client:
        adaptation = client.adapt("sounds", given, LABELS)
        for found in (
            adaptation.predict(files),
            adaptation.predict(recorded, rate=16_000),
            client.adapt_predict("sounds", given, LABELS, query=files),
        ):
            np.testing.assert_allclose(found.probabilities, expected, atol=1e-4)
        np.testing.assert_allclose(adaptation.predict([str(tmp_path / "a.wav")]).probabilities, expected[:1], atol=1e-4)
        with pytest.raises(InvalidArgumentError, match="this model takes audio: give the rate of arrays"):
            adaptation.predict(asked)
        (tmp_path / "a.wav").write_bytes(files[0][:100])
        with pytest.raises(
            InvalidArgumentError, match=r"a\.wav': is damaged.*; query 1: is not a readable recording"
        ) as refused:
            adaptation.predict([tmp_path / "a.wav", b"no sound"])
        assert len(refused.value.violations) == 2


def test_tasks_of_different_texts_share_batches_without_harm(server, folder):
    random = np.random.default_rng(1)

    def texts(count, longest):
        return [" ".join(random.choice(WORDS, random.integers(1, longest))) for _ in range(count)]

    tasks = [(texts(5, 2 + 8 * (index % 5)), texts(1 + index % 4, 30)) for index in range(40)]

    def ask(task):
        with Client(server.target) as client:
            return client.adapt_predict("intents", task[0], LABELS, query=task[1]).probabilities

    with ThreadPoolExecutor(16) as threads:
        for (given, asked), found in zip(tasks, threads.map(ask, tasks), strict=True):
            expected = offline(folder / "intents", pack_texts(given), LABELS, pack_texts(asked))
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_model_says_what_it_takes(client):
    described = {name: client.models.GetModel(GetModelRequest(model=name)).model for name in ("intents", "pictures")}
    intents, pictures = described["intents"], described["pictures"]
    assert (intents.input_kind, list(intents.input_shape)) == (INPUT_KIND_TEXT, [])
    assert intents.limits.max_text_bytes == MAX_TEXT_BYTES
    assert (pictures.input_kind, list(pictures.input_shape)) == (INPUT_KIND_TENSOR, [1, 8, 8])
    assert pictures.limits.max_text_bytes == pictures.limits.max_audio_seconds == 0
    sounds = client.models.GetModel(GetModelRequest(model="sounds")).model
    assert (sounds.input_kind, list(sounds.input_shape), sounds.sample_rate) == (INPUT_KIND_AUDIO, [SAMPLES], RATE)
    assert sounds.limits.max_audio_seconds == MAX_AUDIO_SECONDS


def a_picture():
    content = BytesIO()
    Image.new("L", (8, 8)).save(content, "PNG")
    return images(content.getvalue())


@pytest.mark.parametrize(
    ("model", "query", "field", "why"),
    [
        ("intents", inputs(np.zeros((1, SIZE), np.float32)), "query.tensor", "this model takes texts"),
        ("intents", a_picture(), "query.images", "this model takes texts"),
        ("pictures", texts_message("Hi"), "query.texts", "this model takes no texts, its inputs are [1, 8, 8]"),
        (
            "pictures",
            inputs(np.zeros((1, IMAGE_FEATURES), np.float32)),
            "query.tensor.shape",
            f"is [1, {IMAGE_FEATURES}], must be [N, 1, 8, 8]",
        ),
        ("intents", texts_message(), "query.texts.values", "is empty"),
        (
            "intents",
            texts_message("Hi", "é" * MAX_TEXT_BYTES),
            "query.texts.values[1]",
            f"has {2 * MAX_TEXT_BYTES} bytes, at most {MAX_TEXT_BYTES} are accepted; send a part",
        ),
        (
            "intents",
            texts_message("x" * MAX_TEXT_BYTES, *["y"] * 5000),
            "query.texts.values",
            "are too many for the longest of them; send long ones by themselves",
        ),
        ("intents", texts_message("Hi\0"), "query.texts.values", "text 0 has a character U+0000; remove it"),
        (
            "intents",
            texts_message(*["Hi"] * 10_001),
            "query.texts.values",
            "has 10001 examples, at most 10000 are accepted",
        ),
    ],
)
def test_what_a_model_does_not_take_is_refused(client, fails, model, query, field, why):
    support = pb.Support(
        inputs=texts_message(*TEXTS) if model == "intents" else inputs(np.zeros((5, 1, 8, 8), np.uint8)),
        labels=pb.Labels(values=LABELS),
    )
    problem = fails(client.adaptations.AdaptPredict, pb.AdaptPredictRequest(model=model, support=support, query=query))
    assert problem.code == StatusCode.INVALID_ARGUMENT
    assert problem.fields == {field: why}


def test_strings_are_paths_to_a_model_that_takes_no_texts(server):
    with Client(server.target) as client, pytest.raises(InvalidArgumentError, match="since this model takes no texts"):
        client.adapt("pictures", TEXTS, LABELS)


def test_a_bundle_whose_encoder_was_altered_is_refused(client):
    model = client.models.GetModel(GetModelRequest(model="broken")).model
    assert model.error == "broken: encoder.onnx is truncated or altered (digest differs); copy or export it again"


@pytest.mark.rarely("front ends")
def test_the_shell_adapts_to_texts(server):
    def innerloop(*arguments):
        command = [sys.executable, "-m", "innerloop_command", *arguments, "--server", server.target]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    adaptation = innerloop("adapt", "intents", "lost=card lost", "rate=exchange rate = slow").strip()
    (answer,) = json.loads(innerloop("predict", adaptation, "I lost my card", "--json"))
    assert (answer["text"], answer["label"]) == ("I lost my card", "lost")
    assert "classification of texts" in " ".join(innerloop("models", "intents").split())
    assert "not meta-trained" in innerloop("models", "untrained")


@pytest.mark.rarely("front ends")
@pytest.mark.parametrize("model", ["untrained", "sounds"])
def test_a_load_generator_makes_up_texts_and_recordings(server, model):
    command = [sys.executable, "-m", "innerloop_command", "bench", model, "--server", server.target]
    options = ["--clients", "2", "--duration", "0.3", "--warm-up", "0.1"]
    result = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
