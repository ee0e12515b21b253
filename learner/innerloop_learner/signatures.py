"""Signatures of bundles by Ed25519: who made them, and that nothing was changed since.

The file `signature.json` beside a bundle's manifest signs the manifest's exact bytes. The manifest lists the SHA-256 of
every other file that is read of a bundle, so that one signature covers them all.
"""

import base64
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from innerloop_learner.disk import INCOMING
from innerloop_learner.regular_file import UnusableFileError, read_regular_file

SIGNATURE = "signature.json"
FORMAT = "innerloop-signature"

MOST_SIGNATURE_BYTES = 4096
"""Most bytes of a signature's file; it has about 200."""

MOST_KEYS_BYTES = 2**20
"""Most bytes of a file of keys; a key takes about 120."""

KEY_ID_DIGITS = 16
"""Hexadecimal digits that name a key: enough to find it among others; what counts is the signature."""

_PUBLIC_KEY = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)


class KeyFileError(ValueError):
    """A file holds no usable keys, or can't be read or written; the message says why and what to do."""


class SignatureError(ValueError):
    """A bundle is not signed as it should be; the message is to follow the bundle's name."""


@dataclass(frozen=True)
class Signature:
    """What the file of a signature says.

    Attributes:
        key: id of the key that it claims to be made by.
        content: the signature's 64 bytes.
    """

    key: str
    content: bytes

    def to_bytes(self) -> bytes:
        """The content of the file."""
        data = {"format": FORMAT, "key": self.key, "signature": base64.b64encode(self.content).decode()}
        return (json.dumps(data, indent=2) + "\n").encode()


class SigningKey:
    """A private key that signs bundles."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.id = _id_of(key.public_key())

    def sign(self, manifest: bytes) -> bytes:
        """The content of the file that signs a manifest, given the manifest's bytes."""
        return Signature(self.id, self._key.sign(manifest)).to_bytes()


class TrustedKeys:
    """Public keys, of which one must have signed a bundle.

    Args:
        keys: the keys by their ids.
    """

    def __init__(self, keys: Mapping[str, Ed25519PublicKey]) -> None:
        self._keys = dict(keys)

    def check(self, folder: Path, manifest: bytes) -> str:
        """Check that one of these keys has signed a manifest.

        Args:
            folder: folder of the bundle, where the signature lies.
            manifest: the manifest's bytes, the very ones that will be used.

        Returns:
            the id of the key.

        Raises:
            SignatureError: the bundle is not signed, or by another key, or it was changed afterwards.
        """
        refusals = []
        # A crash in the middle of replacing a bundle leaves files of the new one in a folder of their own.
        for place in (folder, folder / INCOMING):
            try:
                return self._check(read_signature(place), manifest)
            except SignatureError as error:
                refusals.append(error)
        raise refusals[0]

    def _check(self, signature: Signature | None, manifest: bytes) -> str:
        if signature is None:
            raise SignatureError("is not signed; sign it with `innerloop sign`")
        if signature.key not in self._keys:
            raise SignatureError(
                f"is signed by the key {signature.key}, which is not among the trusted ones; sign it with one of them"
            )
        try:
            self._keys[signature.key].verify(signature.content, manifest)
        except InvalidSignature as error:
            raise SignatureError("was changed after it was signed; export and sign it again") from error
        return signature.key


def read_signature(folder: Path) -> Signature | None:
    """Read the signature of the bundle in a folder; None if it has none.

    Raises:
        SignatureError: the file there is none of a signature, or can't be read.
    """
    try:
        data = json.loads(read_regular_file(folder / SIGNATURE, MOST_SIGNATURE_BYTES))
        if data["format"] != FORMAT or not re.fullmatch(rf"[0-9a-f]{{{KEY_ID_DIGITS}}}", data["key"]):
            raise ValueError
        return Signature(data["key"], base64.b64decode(data["signature"], validate=True))
    except FileNotFoundError:
        return None
    except UnusableFileError as error:
        raise SignatureError(f"{SIGNATURE} {error}") from error
    except OSError as error:
        raise SignatureError(f"{SIGNATURE} can't be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise SignatureError(f"{SIGNATURE} is no signature of a bundle; move it away and sign the bundle") from error


def write_new_key(file: Path) -> SigningKey:
    """Make a key, and write it as PEM: the private one to `file`, for its owner's eyes only, the public one beside it.

    Args:
        file: file of the private key; the public one gets `.pub` behind the name.

    Raises:
        KeyFileError: one of the files exists, which is not overwritten, or can't be written.
    """
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    written: list[Path] = []
    try:
        for path, content, mode in ((file, private, 0o600), (public_file(file), public, 0o644)):
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as target:
                written.append(path)
                target.write(content)
                target.flush()
                os.fsync(target.fileno())
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        if isinstance(error, FileExistsError):
            raise KeyFileError(f"{error.filename} exists and is not overwritten; choose another name") from error
        raise KeyFileError(f"{error.filename or file} can't be written ({error.strerror})") from error
    return SigningKey(key)


def public_file(file: Path) -> Path:
    """Path of the public key that `write_new_key` writes beside a private key."""
    return file.with_name(f"{file.name}.pub")


def read_signing_key(file: Path) -> SigningKey:
    """Read a private key.

    Raises:
        KeyFileError: the file holds no private key of Ed25519 without a passphrase, or can't be read.
    """
    content = _read_key_file(file)
    try:
        key = load_pem_private_key(content, password=None)
    except TypeError as error:
        raise KeyFileError(f"{file} has a passphrase; give a private key without one") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"{file} holds no private key as PEM; make one with `innerloop signing-key`") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{file} holds a key that is not of Ed25519; make one with `innerloop signing-key`")
    return SigningKey(key)


def read_trusted_keys(file: Path) -> TrustedKeys:
    """Read the public keys of a file, one PEM block behind the other; what stands between them are comments.

    Raises:
        KeyFileError: the file holds no public key, a private one, or one that is not of Ed25519, or can't be read.
    """
    content = _read_key_file(file)
    if b"PRIVATE KEY-----" in content:
        raise KeyFileError(f"{file} holds a private key; keep it with whoever signs, and give the public one (.pub)")
    keys = {}
    for block in _PUBLIC_KEY.findall(content):
        try:
            key = load_pem_public_key(block)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise KeyFileError(f"{file} holds a damaged public key; copy it again") from error
        if not isinstance(key, Ed25519PublicKey):
            raise KeyFileError(f"{file} holds a key that is not of Ed25519; make one with `innerloop signing-key`")
        keys[_id_of(key)] = key
    if not keys:
        raise KeyFileError(f"{file} holds no public key as PEM; `innerloop signing-key` makes some")
    return TrustedKeys(keys)


def _id_of(key: Ed25519PublicKey) -> str:
    """The first digits of the SHA-256 of a public key as DER (SubjectPublicKeyInfo)."""
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()[:KEY_ID_DIGITS]


def _read_key_file(file: Path) -> bytes:
    try:
        return read_regular_file(file, MOST_KEYS_BYTES)
    except UnusableFileError as error:
        raise KeyFileError(f"{file} {error}") from error
    except OSError as error:
        raise KeyFileError(f"{file} can't be read ({error.strerror})") from error
