"""How much memory states may take."""

ROOM_SHARE, LEAST_ROOM = 8, 256 * 2**20
"""Room for states that are being computed, beside those that are kept: an eighth of these, and at least 256 MiB."""


def with_room(kept_bytes: int) -> int:
    """Bytes to reserve for states, of which at most `kept_bytes` are kept."""
    return kept_bytes + max(kept_bytes // ROOM_SHARE, LEAST_ROOM)
