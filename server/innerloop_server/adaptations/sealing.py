"""Records, recipes and task states as bytes that say of which adaptation they are, and whether they are damaged."""

from hashlib import blake2b

import msgspec

from innerloop_server.adaptations.recipe import Recipe
from innerloop_server.adaptations.record import AdaptationRecord
from innerloop_server.adaptations.stores.interface import DamagedError, Part

CHECKSUM_BYTES = 16


_encode = msgspec.msgpack.Encoder().encode
_record = msgspec.msgpack.Decoder(AdaptationRecord)
_recipe = msgspec.msgpack.Decoder(Recipe)


def seal(part: Part, adaptation_id: str, content: bytes) -> bytes:
    """Content behind a checksum of it, of the adaptation's id, and of which part it is."""
    return _checksum(part, adaptation_id, content) + content


def unseal(part: Part, adaptation_id: str, sealed: bytes) -> bytes:
    """Reverse `seal`.

    Raises:
        DamagedError: it was altered, cut off, or belongs to another adaptation.
    """
    content = sealed[CHECKSUM_BYTES:]
    if sealed[:CHECKSUM_BYTES] != _checksum(part, adaptation_id, content):
        raise DamagedError(part)
    return content


def seal_record(record: AdaptationRecord) -> bytes:
    """A record as bytes."""
    return seal(Part.RECORD, record.id, _encode(record))


def unseal_record(adaptation_id: str, sealed: bytes) -> AdaptationRecord:
    """Reverse `seal_record`. Raises DamagedError."""
    try:
        return _record.decode(unseal(Part.RECORD, adaptation_id, sealed))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # of a version of the server that keeps other fields
        raise DamagedError(Part.RECORD) from error


def seal_recipe(adaptation_id: str, recipe: Recipe) -> bytes:
    """A recipe as bytes."""
    return seal(Part.RECIPE, adaptation_id, _encode(recipe))


def unseal_recipe(adaptation_id: str, sealed: bytes) -> Recipe:
    """Reverse `seal_recipe`. Raises DamagedError."""
    try:
        return _recipe.decode(unseal(Part.RECIPE, adaptation_id, sealed))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamagedError(Part.RECIPE) from error


def _checksum(part: Part, adaptation_id: str, content: bytes) -> bytes:
    checksum = blake2b(digest_size=CHECKSUM_BYTES)
    checksum.update(f"{part} {adaptation_id} ".encode())
    checksum.update(content)
    return checksum.digest()
