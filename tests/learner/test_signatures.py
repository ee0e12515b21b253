"""Signatures of bundles: they cover all that is read, and whatever is not signed by a trusted key is refused."""

import hashlib
import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from innerloop_learner import InputSpec, LearnerSpec, build_learner
from innerloop_learner.bundle import load_bundle, save_bundle
from innerloop_learner.disk import INCOMING
from innerloop_learner.encoders import EncoderSpec
from innerloop_learner.manifest import (
    FILES,
    MANIFEST,
    BundleError,
    Graphs,
    Manifest,
    Provenance,
    TaskLimits,
    digest_of,
    read_files,
    read_manifest,
    sign_bundle,
)
from innerloop_learner.signatures import (
    SIGNATURE,
    KeyFileError,
    SigningKey,
    TrustedKeys,
    public_file,
    read_signature,
    read_signing_key,
    read_trusted_keys,
    write_new_key,
)

SPEC = LearnerSpec("protonet", InputSpec((6,)), backbone="mlp", backbone_settings={"widths": [4]})
TEXTS = EncoderSpec("texts", 6, "features", "mean", max_tokens=32)
NESTED = replace(
    Manifest("words", SPEC, TaskLimits(5, 1, 0, 64, 0), Provenance("none", 0, 0, "2026-01-01", {}, {})),
    graphs=Graphs(18),
    encoder=TEXTS,
)
OTHERS = {"adapt.onnx": b"a", "predict.onnx": b"p", "encoder.onnx": b"e", "tokenizer.json": b"{}"}


def write(path: Path, key: SigningKey | None = None, seed: int = 0) -> Path:
    """A bundle that has every file that a bundle may have."""
    save_bundle(path, NESTED, build_learner(SPEC).init(torch.Generator().manual_seed(seed)), OTHERS, key)
    return path


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return write_new_key(tmp_path / "key")


@pytest.fixture
def trusted(key: SigningKey, tmp_path: Path) -> TrustedKeys:
    del key
    return read_trusted_keys(tmp_path / "key.pub")


@pytest.fixture
def bundle(key: SigningKey, tmp_path: Path) -> Path:
    return write(tmp_path / "words", key)


def read(bundle: Path, keys: TrustedKeys) -> None:
    read_files(bundle, read_manifest(bundle, keys))


def refusal(bundle: Path, keys: TrustedKeys) -> str:
    with pytest.raises(BundleError) as refused:
        read(bundle, keys)
    message = str(refused.value)
    assert message.startswith(f"{bundle.name}: ")
    assert str(bundle.parent) not in message
    return message


def forge(bundle: Path) -> None:
    """Bring a manifest in line with what was changed in the bundle, as somebody without the key would."""
    data = json.loads((bundle / MANIFEST).read_text())
    data["files"] = {name: hashlib.sha256((bundle / name).read_bytes()).hexdigest() for name in data["files"]}
    (bundle / MANIFEST).write_text(json.dumps({**data, "digest": digest_of(data)}))


def test_a_signed_bundle_is_read_and_holds_all_files_that_a_bundle_may_have(bundle: Path, trusted: TrustedKeys) -> None:
    read(bundle, trusted)
    assert {file.name for file in bundle.iterdir()} == FILES | {MANIFEST, SIGNATURE}


@pytest.mark.parametrize("name", sorted(FILES | {MANIFEST}))
@pytest.mark.parametrize("consistent", [False, True], ids=["plainly", "with a manifest that agrees"])
def test_a_change_of_any_file_is_noticed(name: str, consistent: bool, bundle: Path, trusted: TrustedKeys) -> None:
    content = (bundle / name).read_bytes()
    if name == MANIFEST:
        (bundle / name).write_bytes(content.replace(b'"seed": 0', b'"seed": 1'))
    else:
        (bundle / name).write_bytes(content + b" ")
    if consistent:
        forge(bundle)
        read_files(bundle, read_manifest(bundle))  # nothing but the signature tells
    expected = "was changed after it was signed" if consistent or name == MANIFEST else f"{name} is truncated"
    assert expected in refusal(bundle, trusted)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_manifest_can_not_leave_a_file_out(name: str, bundle: Path, trusted: TrustedKeys) -> None:
    data = json.loads((bundle / MANIFEST).read_text())
    del data["files"][name]
    (bundle / MANIFEST).write_text(json.dumps({**data, "digest": digest_of(data)}))
    sign_all = write_new_key(bundle.parent / "another")
    with pytest.raises(BundleError, match="lists unexpected files"):
        sign_bundle(bundle, sign_all)
    assert "was changed after it was signed" in refusal(bundle, trusted)


def test_white_space_of_the_manifest_is_signed_too(bundle: Path, trusted: TrustedKeys) -> None:
    (bundle / MANIFEST).write_bytes((bundle / MANIFEST).read_bytes() + b"\n")
    read_manifest(bundle)
    assert "was changed after it was signed" in refusal(bundle, trusted)


def test_what_was_checked_is_what_is_read(bundle: Path, trusted: TrustedKeys, key: SigningKey) -> None:
    signed = read_manifest(bundle, trusted)

    class Slow(TrustedKeys):
        """Has the bundle replaced by another as soon as it has been checked."""

        def check(self, folder: Path, manifest: bytes) -> str:
            try:
                return trusted.check(folder, manifest)
            finally:
                write(folder, seed=1)

    assert read_manifest(bundle, Slow({})).digest == signed.digest
    write(bundle, key)
    with pytest.raises(BundleError, match=r"parameters.safetensors is truncated or altered"):
        load_bundle(bundle, keys=Slow({}))


def test_an_unsigned_bundle_is_refused_where_signatures_are_asked_for(bundle: Path, trusted: TrustedKeys) -> None:
    (bundle / SIGNATURE).unlink()
    assert refusal(bundle, trusted) == "words: is not signed; sign it with `innerloop sign`"
    read_manifest(bundle)


def test_the_signature_of_another_bundle_does_not_count(
    bundle: Path, trusted: TrustedKeys, key: SigningKey, tmp_path: Path
) -> None:
    other = write(tmp_path / "other", key, seed=1)
    (bundle / SIGNATURE).write_bytes((other / SIGNATURE).read_bytes())
    assert "was changed after it was signed" in refusal(bundle, trusted)


def test_a_key_that_is_not_trusted_does_not_count_even_under_a_trusted_name(
    bundle: Path, trusted: TrustedKeys, key: SigningKey, tmp_path: Path
) -> None:
    stranger = write_new_key(tmp_path / "stranger")
    sign_bundle(bundle, stranger)
    assert f"is signed by the key {stranger.id}, which is not among the trusted ones" in refusal(bundle, trusted)
    pretended = (bundle / SIGNATURE).read_text().replace(stranger.id, key.id)
    (bundle / SIGNATURE).write_text(pretended)
    assert "was changed after it was signed" in refusal(bundle, trusted)


def test_keys_are_exchanged_by_trusting_both_for_a_while(bundle: Path, key: SigningKey, tmp_path: Path) -> None:
    successor = write_new_key(tmp_path / "successor")
    keys = tmp_path / "keys.pem"
    parts = [f"# {name}\n{public_file(tmp_path / name).read_text()}" for name in ("key", "successor")]
    keys.write_text("\n".join(parts))
    both, latter = read_trusted_keys(keys), read_trusted_keys(tmp_path / "successor.pub")
    read(bundle, both)
    refusal(bundle, latter)
    before = (bundle / MANIFEST).read_bytes()
    sign_bundle(bundle, successor)
    assert (bundle / MANIFEST).read_bytes() == before, "an adaptation refers to the version, which stays"
    read(bundle, both)
    read(bundle, latter)
    signature = read_signature(bundle)
    assert signature is not None
    assert signature.key == successor.id != key.id


@pytest.mark.parametrize("kind", ["pipe", "endless", "folder", "huge"])
def test_a_signature_is_a_small_regular_file_and_nothing_holds_up_the_reader(
    kind: str, bundle: Path, trusted: TrustedKeys
) -> None:
    (bundle / SIGNATURE).unlink()
    if kind == "pipe":
        os.mkfifo(bundle / SIGNATURE)
    elif kind == "endless":
        (bundle / SIGNATURE).symlink_to("/dev/zero")
    elif kind == "folder":
        (bundle / SIGNATURE).mkdir()
    else:
        (bundle / SIGNATURE).touch()
        os.truncate(bundle / SIGNATURE, 2**40)
    expected = "is larger than 4,096 bytes" if kind == "huge" else "is no regular file"
    assert f"{SIGNATURE} {expected}" in refusal(bundle, trusted)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(format="other"),
        lambda data: data.update(key=7),
        lambda data: data.update(key="../../keys"),
        lambda data: data.update(signature="?"),
        lambda data: data.update(signature=None),
        lambda data: data.pop("signature"),
    ],
)
def test_a_damaged_signature_is_refused(
    change: Callable[[dict[str, object]], object], bundle: Path, trusted: TrustedKeys
) -> None:
    data = json.loads((bundle / SIGNATURE).read_text())
    change(data)
    (bundle / SIGNATURE).write_text(json.dumps(data))
    assert f"{SIGNATURE} is no signature of a bundle" in refusal(bundle, trusted)


@pytest.mark.parametrize("content", [b"", b"[]", b"[" * 4000, b"\xff\xfe", b'"text"'])
def test_what_is_no_signature_is_refused(content: bytes, bundle: Path, trusted: TrustedKeys) -> None:
    (bundle / SIGNATURE).write_bytes(content)
    assert f"{SIGNATURE} is no signature of a bundle" in refusal(bundle, trusted)


def test_a_signature_of_another_length_is_refused(bundle: Path, trusted: TrustedKeys) -> None:
    data = json.loads((bundle / SIGNATURE).read_text())
    (bundle / SIGNATURE).write_text(json.dumps({**data, "signature": ""}))
    assert "was changed after it was signed" in refusal(bundle, trusted)


def test_a_bundle_that_replaces_a_signed_one_brings_its_own_signature_or_none(
    bundle: Path, trusted: TrustedKeys, key: SigningKey
) -> None:
    write(bundle, key, seed=1)
    read(bundle, trusted)
    write(bundle, seed=2)
    assert not (bundle / SIGNATURE).exists()
    read_manifest(bundle)


def test_a_signature_that_a_crash_left_on_its_way_counts(bundle: Path, trusted: TrustedKeys) -> None:
    (bundle / INCOMING).mkdir()
    (bundle / SIGNATURE).rename(bundle / INCOMING / SIGNATURE)
    read(bundle, trusted)
    (bundle / SIGNATURE).write_text("of the bundle before")
    read(bundle, trusted)


def test_a_file_of_another_origin_is_neither_replaced_nor_removed(key: SigningKey, tmp_path: Path) -> None:
    bundle = write(tmp_path / "plain")
    (bundle / SIGNATURE).write_text("signed at sea, 1912")
    with pytest.raises(BundleError, match=r"holds a file signature.json that is not of the bundle there"):
        write(bundle, key)
    with pytest.raises(BundleError, match=r"signature.json is no signature of a bundle; move it away"):
        sign_bundle(bundle, key)
    write(bundle, seed=1)
    assert (bundle / SIGNATURE).read_text() == "signed at sea, 1912"


def test_a_damaged_bundle_is_not_signed(bundle: Path, key: SigningKey) -> None:
    (bundle / SIGNATURE).unlink()
    (bundle / "tokenizer.json").write_bytes(b"{")
    with pytest.raises(BundleError, match=r"tokenizer.json is truncated or altered"):
        sign_bundle(bundle, key)
    assert not (bundle / SIGNATURE).exists()


def test_a_new_key_is_for_its_owner_only_and_overwrites_nothing(tmp_path: Path) -> None:
    key = write_new_key(tmp_path / "key")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert read_signing_key(tmp_path / "key").id == key.id
    files = {name: (tmp_path / name).read_bytes() for name in ("key", "key.pub")}
    with pytest.raises(KeyFileError, match="key exists and is not overwritten"):
        write_new_key(tmp_path / "key")
    (tmp_path / "new.pub").write_text("another's")
    with pytest.raises(KeyFileError, match=r"new.pub exists and is not overwritten"):
        write_new_key(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert {name: (tmp_path / name).read_bytes() for name in files} == files


RSA = generate_private_key(65537, 2048)


def private_pem(key: object, passphrase: bytes = b"") -> bytes:
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "holds no private key as PEM"),
        (private_pem(RSA), "is not of Ed25519"),
        (private_pem(Ed25519PrivateKey.generate(), b"secret"), "has a passphrase"),
    ],
)
def test_an_unusable_private_key_is_refused_with_a_reason(content: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(KeyFileError, match=why):
        read_signing_key(tmp_path / "key")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "holds no public key as PEM"),
        (private_pem(Ed25519PrivateKey.generate()), "holds a private key"),
        (
            RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "is not of Ed25519",
        ),
        (b"-----BEGIN PUBLIC KEY-----\nQUJD\n-----END PUBLIC KEY-----\n", "damaged public key"),
        (None, "can't be read"),
    ],
)
def test_unusable_trusted_keys_are_refused_with_a_reason(content: bytes | None, why: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "keys").write_bytes(content)
    with pytest.raises(KeyFileError, match=why):
        read_trusted_keys(tmp_path / "keys")
