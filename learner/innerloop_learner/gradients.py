"""Whether gradients may be differentiated again: those that PyTorch's fused kernels come with can't be.

Inner steps say so where they are of first order; whatever else is recorded may be.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch


@contextmanager
def differentiated_once(once: bool) -> Iterator[None]:
    """Inside, what is computed is differentiated once at most, if so told."""
    before = _once.set(once)
    try:
        yield
    finally:
        _once.reset(before)


def may_be_differentiated_twice() -> bool:
    """Whether somebody may ask for gradients of the gradients of what is computed here."""
    return torch.is_grad_enabled() and not _once.get()


_once: ContextVar[bool] = ContextVar("differentiated_once", default=False)
