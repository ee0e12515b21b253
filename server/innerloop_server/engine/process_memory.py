"""Memory of this process."""

from collections.abc import Mapping

from innerloop_learner.host_memory import resident_bytes


def resident(device: str) -> Mapping[tuple[str, str], int]:
    """Bytes of memory that this process takes, by (device, "resident"); empty where the system doesn't tell."""
    size = resident_bytes()
    return {} if size is None else {(device, "resident"): size}
