"""Settings that run.py gives to every peer; each reads those that concern it."""

import argparse
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """How to serve.

    Attributes:
        ports: on 127.0.0.1, mostly one.
        workers: processes that compute.
        threads: of each of them, inside PyTorch.
        batch: most requests that a worker computes together; one for no batching.
        adapt: name in `conv4.ADAPT`, where requests are not batched.
        device: "cpu" or "cuda".
        weights: state dict of `conv4.Conv4`.
        folder: for files of its own.
    """

    ports: list[int]
    workers: int
    threads: int
    batch: int
    adapt: str
    device: str
    weights: Path
    folder: Path


def read_settings() -> Settings:
    """Settings from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ports", type=int, nargs="+", required=True)
    for name in ("workers", "threads", "batch"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("adapt", "device"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("weights", "folder"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    return Settings(**vars(parser.parse_args()))
