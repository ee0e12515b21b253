"""Makes API keys."""

import json
import os
import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from innerloop_server.domain.callers import Scope
from innerloop_server.identity.api_keys import OWNER, PREFIX, check_file
from innerloop_server.identity.followed_file import UnusableFileError

SECRET_BYTES = 32
"""Random bytes of a key."""


class NewKey(NamedTuple):
    """A key that was just made, and its entry in the file of keys, which ends with a line break."""

    key: str
    entry: str


def new_key(owner: str, scopes: Sequence[Scope], expires: datetime | None = None) -> NewKey:
    """Make a key.

    Args:
        owner: whom its adaptations belong to.
        scopes: what its callers may do.
        expires: when it stops being valid; None for never.

    Raises:
        ValueError: owners can't be called that.
    """
    if not re.fullmatch(OWNER, owner):
        raise ValueError("an owner's name has up to 128 letters, digits and characters of ._@:/+-")
    id_ = secrets.token_hex(4)
    key = f"{PREFIX}{id_}_{secrets.token_urlsafe(SECRET_BYTES)}"
    lines = [
        f"[keys.{id_}]",
        f'owner = "{owner}"',
        f'sha256 = "{sha256(key.encode()).hexdigest()}"',
        f"scopes = {json.dumps(scopes)}",
    ]
    if expires is not None:
        lines.append(f"expires = {expires.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}")
    return NewKey(key, "\n".join(lines) + "\n")


def append_entry(file: Path, entry: str) -> None:
    """Add an entry to a file of keys, which is made if there is none; what it holds stays as it is.

    Raises:
        UnusableFileError: what the file holds is wrong, so that the entry would not count.
        OSError: the file can't be written.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    with open(descriptor, "r+b") as opened:  # noqa: PTH123 - a descriptor has no path
        before = opened.read()
        added = ("\n" if before and not before.endswith(b"\n") else "") + ("\n" if before else "") + entry
        try:
            check_file(before + added.encode())
        except UnusableFileError as error:
            raise UnusableFileError(f"{file} {error}; nothing was added to it") from error
        opened.write(added.encode())
        opened.flush()
        os.fsync(opened.fileno())
