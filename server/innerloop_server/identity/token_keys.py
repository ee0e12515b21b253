"""The public keys that tokens are signed for: from a file, or from a URL."""

import asyncio
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import structlog
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import PyJWKClient, PyJWKSet, PyJWTError

from innerloop_server.identity.followed_file import FollowedFile, UnusableFileError

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

LEAST_RSA_BITS = 2048
"""Least size of an RSA key (RFC 7518, section 3.3)."""

REFRESH_SECONDS = 300.0
"""Seconds between two looks at a URL."""

RETRY_SECONDS = 10.0
"""Least seconds between two attempts to read a URL, which failed or was read for a token whose key was not there."""

FETCH_SECONDS = 10.0
"""Longest time that reading a URL holds anybody up. A server that is slower is read on in its thread."""

_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_PEM = re.compile(rb"-----BEGIN (?P<kind>[A-Z0-9 ]+)-----.*?-----END (?P=kind)-----", re.DOTALL)


class TokenKey(NamedTuple):
    """A public key, and the algorithms of signatures that it checks; none of them uses a shared secret.

    Attributes:
        id: by which tokens name it; None where it has none, and is tried for every token.
        key: of the package cryptography.
        algorithms: as tokens call them.
    """

    id: str | None
    key: PublicKey
    algorithms: tuple[str, ...]


class TokenKeys(Protocol):
    """Source of the public keys that tokens are checked with.

    Attributes:
        keys: those there are; another object whenever they have changed.
    """

    @property
    def keys(self) -> Sequence[TokenKey]: ...  # noqa: D102

    async def look(self) -> None:
        """Bring the keys up to date if it is time."""

    async def seek(self) -> bool:
        """Look for the key of a token at once; true if it is worth another try."""


class FileKeys:
    """Keys of a file: PEM, or a JSON Web Key Set (RFC 7517).

    Raises:
        UnusableFileError: the file can't be read, or holds no public key.
    """

    def __init__(self, file: Path) -> None:
        self._file = FollowedFile(file, _read, "keys of tokens")

    @property
    def keys(self) -> Sequence[TokenKey]:
        """See TokenKeys."""
        return self._file.value

    async def look(self) -> None:
        """See TokenKeys."""
        await asyncio.to_thread(self._file.look)

    async def seek(self) -> bool:
        """See TokenKeys."""
        return False


class UrlKeys:
    """Keys of a JSON Web Key Set at a URL, read in a thread; what can't be read leaves the keys as they are."""

    def __init__(self, url: str) -> None:
        self._client = PyJWKClient(url, cache_jwk_set=False, timeout=FETCH_SECONDS)
        self._keys: Sequence[TokenKey] = ()
        self._tried = self._due = float("-inf")
        self._fetching: asyncio.Task[bool] | None = None

    @property
    def keys(self) -> Sequence[TokenKey]:
        """See TokenKeys."""
        return self._keys

    async def look(self) -> None:
        """See TokenKeys."""
        if time.monotonic() >= self._due:
            await self._fetched()

    async def seek(self) -> bool:
        """See TokenKeys."""
        if self._fetching is None and time.monotonic() < self._tried + RETRY_SECONDS:
            return False
        return await self._fetched()

    async def _fetched(self) -> bool:
        """Read the URL, once for all who ask meanwhile; whether that went well in time."""
        fetching = self._fetching = self._fetching or asyncio.create_task(self._fetch())
        # The client's own limit is one of each wait for bytes, of which there may be many.
        ended, _ = await asyncio.wait([fetching], timeout=FETCH_SECONDS)
        return bool(ended) and fetching.result()

    async def _fetch(self) -> bool:
        self._tried = time.monotonic()
        try:
            self._keys = _usable(await asyncio.to_thread(self._client.get_jwk_set))
        except Exception as error:  # JSON that is nested too deep, for example, ends in a RecursionError
            structlog.get_logger().error("keys of tokens can't be read", reason=type(error).__name__)
            self._due = self._tried + RETRY_SECONDS
            return False
        finally:
            self._fetching = None
        self._due = self._tried + REFRESH_SECONDS
        return True


def _read(content: bytes) -> Sequence[TokenKey]:
    """The keys of a file.

    Raises:
        UnusableFileError: there is none, or something else than public keys.
    """
    blocks = list(_PEM.finditer(content))
    if blocks:
        if any(b"PRIVATE" in block["kind"] for block in blocks):
            raise UnusableFileError("holds a private key; the server needs the public one only")
        try:
            keys = [_token_key(None, load_pem_public_key(block[0])) for block in blocks]
        except ValueError as error:
            raise UnusableFileError("holds PEM that is no public key") from error
        if None in keys:
            raise UnusableFileError(
                f"holds a key that is none of RSA (of {LEAST_RSA_BITS} bits or more), P-256, P-384, P-521 and Ed25519"
            )
        return [key for key in keys if key is not None]
    try:
        data = json.loads(content)
        return _usable(PyJWKSet.from_dict(data))
    except (PyJWTError, ValueError, AttributeError) as error:
        if isinstance(error, UnusableFileError):
            raise
        raise UnusableFileError("is neither PEM nor a JSON Web Key Set") from error


def _usable(keys: PyJWKSet) -> Sequence[TokenKey]:
    """The keys of a set that check signatures; others may be there for other purposes.

    Raises:
        UnusableFileError: there is none.
    """
    found = []
    for entry in keys:
        key = _token_key(entry.key_id, entry.key) if entry.public_key_use in ("sig", None) else None
        if key is not None and entry.algorithm_name in key.algorithms:
            found.append(key._replace(algorithms=(entry.algorithm_name,)))
    if not found:
        raise UnusableFileError("holds no public key that checks signatures")
    return found


def _token_key(id_: str | None, key: object) -> TokenKey | None:
    """A key with the algorithms that are safe with it; None if there are none."""
    match key:
        case rsa.RSAPublicKey() if key.key_size >= LEAST_RSA_BITS:
            return TokenKey(id_, key, _RSA)
        case ec.EllipticCurvePublicKey() if key.curve.name in _CURVES:
            return TokenKey(id_, key, (_CURVES[key.curve.name],))
        case ed25519.Ed25519PublicKey():
            return TokenKey(id_, key, ("EdDSA",))
    return None
