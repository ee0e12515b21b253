"""How exactly a GPU multiplies float32 numbers."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def allow_tf32(allowed: bool) -> None:
    """Let the libraries of a GPU round float32 factors to TF32, or forbid it, which cuDNN does not by default.

    TF32 has 10 bits of mantissa. The libraries have one switch for a process.
    """
    torch.backends.cuda.matmul.fp32_precision = "tf32" if allowed else "ieee"
    # Not its `conv.fp32_precision`: PyTorch can't trace graphs any more in a process in which that was set to "ieee".
    torch.backends.cudnn.allow_tf32 = allowed


@contextmanager
def tf32_allowed(allowed: bool) -> Iterator[None]:
    """Round float32 factors to TF32 inside this context, or forbid it there."""
    products, convolutions = torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.allow_tf32
    allow_tf32(allowed)
    try:
        yield
    finally:
        torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.allow_tf32 = products, convolutions
