"""API keys: the file that says whose they are, and how they are checked.

A key carries 256 random bits, so its SHA-256 can be stored as it is: nobody finds the key by trying, and the slow,
salted hashes that passwords need would protect nothing more.
"""

import re
import time
import tomllib
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from innerloop_server.domain.callers import Caller, OwnerLimits, Scope
from innerloop_server.identity.followed_file import FollowedFile, UnusableFileError
from innerloop_server.identity.invalid_credential import InvalidCredentialError

PREFIX = "ilk_"
"""How keys begin, so that people and scanners for leaked secrets recognise them."""

OWNER = r"[A-Za-z0-9._@:/+-]{1,128}"
"""What an owner may be called."""

_KEY = re.compile(rf"{PREFIX}(?P<id>[0-9a-f]{{8}})_[A-Za-z0-9_-]{{43}}")
_ID = re.compile(r"[0-9a-f]{8}")

_NOBODYS_DIGEST = bytes(32)
"""Stands for the digest of a key that nobody has: an unknown id takes as long as a wrong key."""


class _Limits(BaseModel):
    """`OwnerLimits` as the file says them."""

    model_config = ConfigDict(extra="forbid")

    requests_per_second: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    examples_per_second: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    waiting: int | None = Field(default=None, ge=1)
    adaptations: int | None = Field(default=None, ge=1)


class _Entry(BaseModel):
    """One key of the file."""

    model_config = ConfigDict(extra="forbid")

    owner: str = Field(pattern=f"^{OWNER}$")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    scopes: list[Scope]
    expires: AwareDatetime | None = Field(default=None, strict=True)
    limits: _Limits = _Limits()


@dataclass(frozen=True, slots=True)
class _ApiKey:
    digest: bytes
    caller: Caller
    expires: datetime | None


class ApiKeys:
    """The keys of a file.

    Args:
        file: TOML, with a table `keys.ID` for each key.

    Raises:
        UnusableFileError: the file can't be read, or is wrong.
    """

    def __init__(self, file: Path) -> None:
        self._file = FollowedFile(file, _read, "API keys")

    def caller(self, key: str) -> Caller:
        """The caller whose key this is.

        Raises:
            InvalidCredentialError: it is nobody's, or has expired.
        """
        form = _KEY.fullmatch(key)
        found = self._file.value.get(form["id"]) if form is not None else None
        expected = _NOBODYS_DIGEST if found is None else found.digest
        alike = compare_digest(sha256(key.encode()).digest(), expected)
        if found is None or not alike:
            raise InvalidCredentialError("there is no such API key")
        if found.expires is not None and found.expires.timestamp() <= time.time():
            raise InvalidCredentialError("the API key has expired")
        return found.caller

    def look(self) -> None:
        """Read the file if it has changed."""
        self._file.look()


def check_file(content: bytes) -> None:
    """Check what a file of API keys holds.

    Raises:
        UnusableFileError: something of it is wrong.
    """
    _read(content)


def _read(content: bytes) -> dict[str, _ApiKey]:
    """The keys by their ids."""
    try:
        data = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise UnusableFileError("is not valid TOML") from error
    entries = data.pop("keys", {})
    if data or not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise UnusableFileError("holds something else than tables [keys.ID]")
    # Not quoted: whoever mistakes the one for the other has put a key there.
    if not all(map(_ID.fullmatch, entries)):
        raise UnusableFileError("names a key by something else than the 8 digits after its prefix")
    return {id_: _api_key(id_, entry) for id_, entry in entries.items()}


def _api_key(id_: str, data: dict[str, Any]) -> _ApiKey:
    try:
        entry = _Entry.model_validate(data)
    except ValidationError as error:
        problem = error.errors(include_input=False)[0]
        name = ".".join(map(str, ("keys", id_, *problem["loc"])))
        raise UnusableFileError(f"has an unusable value: {name}: {problem['msg']}") from None
    limits = OwnerLimits(**entry.limits.model_dump())
    caller = Caller(f"api-key:{entry.owner}", scopes=frozenset(entry.scopes), limits=limits)
    return _ApiKey(bytes.fromhex(entry.sha256), caller, entry.expires)
