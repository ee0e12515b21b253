"""The SDK and the shell's client against a real server process."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from forks import ServerProcess
from PIL import Image

from innerloop import (
    AdaptationEvictedError,
    AsyncClient,
    Client,
    InvalidArgumentError,
    ModelNotFoundError,
    OverloadedError,
    ResourceExhaustedError,
)
from innerloop_learner import InputSpec, LearnerSpec, build_learner
from innerloop_learner.bundle import save_bundle
from innerloop_learner.manifest import Manifest, Provenance, TaskLimits

pytestmark = pytest.mark.with_and_without_front_ends

ADAPTATION_BYTES = 100_000
LABELS = ["alpha", "beta", "gamma"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with one untrained bundle: prototypes of random features tell plain patterns apart."""
    learner = build_learner(
        LearnerSpec("protonet", InputSpec((1, 28, 28), "uint8", (0.5,), (0.5,), 1 / 255), max_ways=20)
    )
    manifest = Manifest("patterns", learner.spec, TaskLimits(5, 1, 0, 20, 0), Provenance("none", 0, 0, "", {}))
    folder = tmp_path_factory.mktemp("models")
    save_bundle(folder / "patterns", manifest, learner.init(torch.Generator().manual_seed(0)))
    return folder


@pytest.fixture(scope="module")
def address(models, frontends):
    settings = {"threads": 1, "lanes": 1, "frontends": frontends}
    with ServerProcess(models, adaptation_bytes=ADAPTATION_BYTES, **settings) as server:
        yield server.target


def patterns(examples, seed):
    """Images uint8 [3 * examples, 28, 28] of stripes, checks and a disc, each a little different."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:28, :28]
    plain = [rows % 4 < 2, (rows // 7 + columns // 7) % 2 == 0, (rows - 14) ** 2 + (columns - 14) ** 2 < 64]
    images = [np.where(pattern, 220, 30) for pattern in plain for _ in range(examples)]
    return (np.stack(images) + random.integers(-25, 26, (3 * examples, 28, 28))).astype(np.uint8)


SUPPORT, QUERY = patterns(1, seed=1), patterns(4, seed=2)
EXPECTED = [label for label in LABELS for _ in range(4)]


def test_the_five_lines_of_the_design(address):
    support_images, support_labels, query_images, answers = SUPPORT, LABELS, QUERY, []
    with Client(address) as client:
        adaptation = client.adapt("patterns", support_images, support_labels)
        for p in adaptation.predict(query_images):
            answers.append((p.label, p.probability, p.probabilities))  # noqa: PERF401 - as the design writes it
    assert [label for label, _, _ in answers] == EXPECTED
    assert all(probability == probabilities[label] for label, probability, probabilities in answers)
    assert all(sum(probabilities.values()) == pytest.approx(1, abs=1e-5) for _, _, probabilities in answers)


def test_arrays_images_and_files_give_the_same_answers(address, tmp_path):
    images = [Image.fromarray(image) for image in QUERY]
    files = [tmp_path / f"{index}.png" for index in range(len(images))]
    for image, file in zip(images, files, strict=True):
        image.save(file)
    forms = [QUERY, QUERY[:, None], QUERY[..., None], list(QUERY), QUERY.astype(float), images, files, map(str, files)]
    with Client(address) as client:
        adaptation = client.adapt("patterns", SUPPORT, LABELS)
        first, *others = [adaptation.predict(form).probabilities for form in forms]
    for other in others:
        np.testing.assert_allclose(other, first, atol=1e-6)


async def test_the_asynchronous_twin_gives_the_same_answers(address):
    async with AsyncClient(address) as client:
        adaptation = await client.adapt("patterns", SUPPORT, LABELS)
        assert (await adaptation.predict(QUERY)).labels == EXPECTED
        once = await client.adapt_predict("patterns", SUPPORT, LABELS, query=QUERY)
        assert once.labels == EXPECTED
        found = [a.id async for a in client.list_adaptations("patterns")]
        assert adaptation.id in found


def test_callers_never_notice_that_the_server_ran_out_of_memory(address):
    with Client(address) as client:
        first = client.adapt("patterns", SUPPORT, [1, 2, 3])
        evicted = first.id
        for _ in range(ADAPTATION_BYTES // first.info.size_bytes):
            client.adapt("patterns", SUPPORT, LABELS)
        with pytest.raises(AdaptationEvictedError):
            client.get_adaptation(evicted)
        assert set(first.predict(QUERY).labels) == {1, 2, 3}
        assert first.id != evicted


@pytest.mark.rarely("front ends")
def test_callers_never_notice_that_the_server_has_memory_for_hardly_any_of_them(models, address):
    with Client(address) as client:
        size = client.adapt("patterns", SUPPORT, LABELS).info.size_bytes

    def ask(client):
        adaptation = client.adapt("patterns", SUPPORT, LABELS)
        return [adaptation.predict(QUERY).labels for _ in range(10)]

    with (
        ServerProcess(models, threads=1, lanes=1, adaptation_bytes=size) as server,
        Client(server.target) as client,
        ThreadPoolExecutor(4) as threads,
    ):
        assert list(threads.map(ask, [client] * 4)) == [[EXPECTED] * 10] * 4


@pytest.mark.rarely("front ends")
def test_callers_never_notice_that_the_server_was_restarted(models, frontends):
    with ServerProcess(models, threads=1, lanes=1, frontends=frontends) as server:
        client = Client(server.target)
        adaptation = client.adapt("patterns", SUPPORT, LABELS)
    with client, ServerProcess(models, threads=1, lanes=1, frontends=frontends, port=server.port):
        assert adaptation.predict(QUERY).labels == EXPECTED


def test_mistakes_are_named(address):
    with Client(address) as client:
        with pytest.raises(ModelNotFoundError):
            client.adapt("absent", SUPPORT[:, None], LABELS)
        with pytest.raises(InvalidArgumentError) as caught:
            client.adapt("patterns", SUPPORT, LABELS[:2])
    assert [violation.field for violation in caught.value.violations] == ["support.labels"]


def test_all_broken_files_are_named_by_their_paths(address, tmp_path):
    files = [tmp_path / name for name in ("sound.png", "junk.png", "text.jpg")]
    for file in files:
        file.write_bytes(b"no image")
    Image.fromarray(SUPPORT[0]).save(files[0])
    with Client(address) as client, pytest.raises(InvalidArgumentError, match=r"junk\.png.*text\.jpg") as caught:
        client.adapt("patterns", files, LABELS)
    assert "sound" not in str(caught.value)
    assert "files[" not in str(caught.value)


@pytest.mark.rarely("front ends")
def test_more_queries_than_the_server_takes_are_answered(address):
    queries = np.tile(QUERY, (900, 1, 1))
    with Client(address, timeout=200) as client:  # more than ten thousand queries, on a busy machine, too
        assert len(queries) > client.model("patterns").limits.max_query
        before = {adaptation.id for adaptation in client.list_adaptations()}
        answers = client.adapt_predict("patterns", SUPPORT, LABELS, query=queries)
        assert answers.labels == EXPECTED * 900
        assert {adaptation.id for adaptation in client.list_adaptations()} <= before


@pytest.mark.rarely("front ends")
def test_the_shell_adapts_and_predicts(address, tmp_path):
    for label, image in zip(LABELS, SUPPORT, strict=True):
        (tmp_path / "support" / label).mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / "support" / label / "1.png")
    query = tmp_path / "query.png"
    Image.fromarray(QUERY[0]).save(query)

    def innerloop(*arguments):
        command = [sys.executable, "-m", "innerloop_command", *map(str, arguments), "--server", address]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    adaptation = innerloop("adapt", "patterns", tmp_path / "support").strip()
    (answer,) = json.loads(innerloop("predict", adaptation, query, "--json"))
    assert answer["label"] == LABELS[0]
    assert json.loads(innerloop("models", "patterns", "--json"))["method"] == "protonet"


def test_a_stream_of_queries_answers_as_predict_does(address):
    queries = [patterns(1 + seed % 3, seed) for seed in range(60)]
    with Client(address) as client:
        adaptation = client.adapt("patterns", SUPPORT, LABELS)
        streamed = list(adaptation.predict_stream(queries, return_logits=True))
        for query, answers in zip(queries, streamed, strict=True):
            alone = adaptation.predict(query, return_logits=True)
            assert (answers.classes, answers.labels) == (alone.classes, alone.labels)
            np.testing.assert_allclose(answers.probabilities, alone.probabilities, atol=1e-5)
            np.testing.assert_allclose(answers.logits, alone.logits, atol=1e-3)
            assert answers.timings.predict > 0


async def test_an_asynchronous_stream_of_queries_answers_the_same(address):
    async def camera():
        for seed in range(60):
            yield patterns(1, seed)

    async with AsyncClient(address) as client:
        adaptation = await client.adapt("patterns", SUPPORT, LABELS)
        assert [answers.labels async for answers in adaptation.predict_stream(camera())] == [LABELS] * 60


def test_an_adaptation_that_was_evicted_in_mid_stream_is_made_again(address):
    def queries():
        for seed in range(60):
            if seed == 30:
                for _ in range(1 + ADAPTATION_BYTES // adaptation.info.size_bytes):
                    client.adapt("patterns", SUPPORT, LABELS)
            yield patterns(1, seed)

    with Client(address) as client:
        adaptation = client.adapt("patterns", SUPPORT, LABELS)
        lost = adaptation.id
        assert [answers.labels for answers in adaptation.predict_stream(queries())] == [LABELS] * 60
        assert adaptation.id != lost
        adaptation = client.get_adaptation(adaptation.id)
        with pytest.raises(AdaptationEvictedError):
            list(adaptation.predict_stream(queries()))


@pytest.mark.rarely("front ends")
def test_a_stream_goes_on_when_the_server_is_started_again(models, frontends):
    def queries():
        for seed in range(60):
            if seed == 30:
                servers[0].stop()
                servers.append(ServerProcess(models, port=servers[0].port, **settings))
                servers[1].__enter__()
            yield patterns(1, seed)

    settings = {"threads": 1, "lanes": 1, "frontends": frontends}
    servers = [ServerProcess(models, **settings)]
    with servers[0], Client(servers[0].target, retries=50) as client:
        adaptation = client.adapt("patterns", SUPPORT, LABELS)
        try:
            assert [answers.labels for answers in adaptation.predict_stream(queries())] == [LABELS] * 60
        finally:
            servers[-1].stop()


@pytest.mark.rarely("alone")
def test_an_owner_that_has_as_many_adaptations_as_it_may_is_told_to_delete_some(models, frontends):
    settings = {"threads": 1, "lanes": 1, "frontends": frontends, "owner_adaptations": 2}
    with ServerProcess(models, **settings) as server, Client(server.target) as client:
        kept = [client.adapt("patterns", SUPPORT, LABELS) for _ in range(2)]
        with pytest.raises(ResourceExhaustedError, match="delete some") as refused:
            client.adapt("patterns", SUPPORT, LABELS)
        assert refused.value.reason == "TOO_MANY_ADAPTATIONS"
        assert not isinstance(refused.value, OverloadedError), "trying again would not help"
        assert client.adapt_predict("patterns", SUPPORT, LABELS, query=QUERY).labels == EXPECTED
        kept.pop().delete()
        assert client.adapt("patterns", SUPPORT, LABELS).predict(QUERY).labels == EXPECTED
