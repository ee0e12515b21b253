"""Random streams that depend on a seed and a position alone, so that resuming needs no generator state."""

import hashlib

import torch


def generator_for(seed: int, stream: str, position: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """Make a generator for one use.

    Args:
        seed: seed of the run.
        stream: name of the use, such as "evaluation"; streams of different names draw different numbers.
        position: position within the stream, for example the iteration.
        device: device of the generator.
    """
    return torch.Generator(device).manual_seed(seed_for(seed, stream, position))


def seed_for(seed: int, stream: str, position: int = 0) -> int:
    """The seed of the generator that `generator_for` gives."""
    digest = hashlib.sha256(f"{seed}/{stream}/{position}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
