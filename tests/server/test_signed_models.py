"""A repository that asks for signatures, over real bundles and the real engines."""

import json
import shutil
from hashlib import sha256
from types import SimpleNamespace

import pytest
from bundles import PROTOTYPES, write_bundle, write_encoded
from encoders import token_encoder, tokenizer
from onnx_bundles import ADAPT_CLASSES, CLASSES, PREDICT_CLASSES, write_onnx_bundle

import innerloop_learner.manifest as reading
from innerloop_learner.encoders import EncoderOptions, describe_encoder
from innerloop_learner.encoders.session import Computing
from innerloop_learner.manifest import sign_bundle
from innerloop_learner.signatures import write_new_key
from innerloop_server.domain.errors import ModelFailedError
from innerloop_server.domain.models import ModelState
from innerloop_server.engine.encoding import EncodingEngine
from innerloop_server.engine.onnx.engine import OnnxEngine, OnnxSettings
from innerloop_server.engine.pytorch.engine import TorchEngine, TorchSettings
from innerloop_server.models.repository import ModelRepository
from innerloop_server.scheduling.lanes import Lanes


@pytest.fixture
def key(tmp_path):
    return write_new_key(tmp_path / "key")


@pytest.fixture
async def repository(tmp_path, key):
    """A repository that takes what `key` has signed; it has a signed model, and one of two versions."""
    folder = tmp_path / "models"
    for number, name in enumerate(("good", "signs/1", "signs/2")):
        write_bundle(folder / name, PROTOTYPES, seed=number)
        sign_bundle(folder / name, key)
    lane, engine = Lanes(1), EncodingEngine(TorchEngine(TorchSettings("cpu")), Computing(1, cuda=False))
    yield ModelRepository(folder, engine, lane.call, [], keys_file=tmp_path / "key.pub")
    await lane.stop(5)


def unsign(bundle, tmp_path):
    del tmp_path
    (bundle / "signature.json").unlink()


def sign_by_another(bundle, tmp_path):
    sign_bundle(bundle, write_new_key(tmp_path / "stranger"))


def change(bundle, tmp_path):
    del tmp_path
    signature = (bundle / "signature.json").read_bytes()
    write_bundle(bundle, PROTOTYPES, seed=9)
    (bundle / "signature.json").write_bytes(signature)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (unsign, "good: is not signed; sign it with `innerloop sign`"),
        (sign_by_another, "good: is signed by the key .*, which is not among the trusted ones"),
        (change, "good: was changed after it was signed"),
    ],
)
async def test_a_bundle_that_is_not_signed_as_it_must_be_is_refused_and_the_others_serve(
    repository, key, tmp_path, spoil, why
):
    bundle = tmp_path / "models" / "good"
    spoil(bundle, tmp_path)
    await repository.load_all()
    assert repository.get("signs@1")
    with pytest.raises(ModelFailedError, match=why):
        repository.get("good")
    with pytest.raises(ModelFailedError, match=why):
        await repository.load("good")
    sign_bundle(bundle, key)
    assert await repository.load("good") is repository.get("good")


async def test_what_serves_goes_on_when_an_unsigned_bundle_takes_its_place(repository, key, tmp_path):
    await repository.load_all()
    serving, bundle = repository.get("good"), tmp_path / "models" / "good"
    write_bundle(bundle, PROTOTYPES, seed=9)
    for _ in range(2):
        await repository.look()
    (entry,) = repository.versions("good").versions
    assert (entry.state, entry.error) == (ModelState.READY, "good: is not signed; sign it with `innerloop sign`")
    assert repository.get("good") is serving
    sign_bundle(bundle, key)
    for _ in range(2):
        await repository.look()
    assert repository.get("good") is not serving
    assert not repository.versions("good").versions[0].error


async def test_versions_are_signed_one_by_one(repository, tmp_path):
    (tmp_path / "models" / "signs" / "2" / "signature.json").unlink()
    await repository.load_all()
    assert repository.get("signs") is repository.get("signs@1")
    with pytest.raises(ModelFailedError, match="is not signed"):
        repository.get("signs@2")
    shutil.copy(tmp_path / "models" / "signs" / "1" / "signature.json", tmp_path / "models" / "signs" / "2")
    with pytest.raises(ModelFailedError, match="was changed after it was signed"):
        await repository.load("signs@2")


async def test_trusted_keys_are_exchanged_while_the_server_runs(repository, tmp_path):
    await repository.load_all()
    serving = repository.get("good")
    keys, successor = tmp_path / "key.pub", write_new_key(tmp_path / "successor")
    write_bundle(tmp_path / "models" / "good", PROTOTYPES, seed=9)
    sign_bundle(tmp_path / "models" / "good", successor)
    with pytest.raises(ModelFailedError, match="not among the trusted ones"):
        await repository.load("good")
    content = keys.read_text()
    keys.unlink()
    with pytest.raises(ModelFailedError, match="the server's trusted keys can't be read") as refused:
        await repository.load("good")
    assert str(tmp_path) not in str(refused.value)
    assert repository.get("good") is serving
    keys.write_text(content + (tmp_path / "successor.pub").read_text())
    assert await repository.load("good") is not serving


def write_behind_an_encoder(path):
    write_encoded(path, "protonet", describe_encoder(token_encoder(mask=True), tokenizer(), EncoderOptions()))


def write_graphs(path):
    write_onnx_bundle(path, PROTOTYPES, CLASSES, ADAPT_CLASSES, PREDICT_CLASSES)


@pytest.mark.parametrize(
    ("make", "write"),
    [
        (lambda: TorchEngine(TorchSettings("cpu")), write_behind_an_encoder),
        (lambda: OnnxEngine(OnnxSettings("cpu")), write_graphs),
    ],
    ids=["PyTorch", "ONNX Runtime"],
)
def test_an_engine_reads_nothing_of_a_bundle_that_was_not_checked(monkeypatch, tmp_path, make, write):
    """Each manifest that is read is one whose bytes the keys have seen, and lists the digest of each file that is."""
    write(tmp_path / "good")
    checked, contents, opened = [], {}, reading.read_regular_file
    keys = SimpleNamespace(check=lambda _, manifest: checked.append(manifest))

    def note(path, most):
        content = opened(path, most)
        contents.setdefault(path.name, []).append(content)
        return content

    monkeypatch.setattr(reading, "read_regular_file", note)
    EncodingEngine(make(), Computing(1, cuda=False)).load("good", tmp_path / "good", keys)
    assert contents.pop("manifest.json") == checked != []
    assert contents.keys() == {file.name for file in (tmp_path / "good").iterdir()} - {"manifest.json"}
    digests = json.loads(checked[0])["files"]
    for name, versions in contents.items():
        assert {sha256(content).hexdigest() for content in versions} == {digests[name]}
