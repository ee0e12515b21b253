"""How exactly a GPU multiplies float32 numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

Float32Precision = Literal["ieee", "tf32"]
"""Precision of the factors of float32 products on a GPU: as they are, or rounded to 10 bits of mantissa."""


def set_float32_precision(precision: Float32Precision) -> None:
    """Let the libraries of a GPU round float32 factors to TF32, or forbid it, which cuDNN does not by default.

    They have one switch for a process.
    """
    torch.backends.cuda.matmul.fp32_precision = precision
    # Not its `conv.fp32_precision`: PyTorch can't trace graphs any more in a process in which that was set to "ieee".
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


@contextmanager
def float32_precision(precision: Float32Precision) -> Iterator[None]:
    """Have products computed in a precision inside this context."""
    products, convolutions = torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.allow_tf32
    set_float32_precision(precision)
    try:
        yield
    finally:
        torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.allow_tf32 = products, convolutions
