"""Copies of task states between the pages of a device and those of its host."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PageNumbers = NDArray[np.int64]


class StateCopies(ABC):
    """Copies pages [P] between words [pages, PAGE_WORDS] of a device and of the host.

    Both functions are called in the order of the device's work. What the device is given after a call finds the pages
    copied, although the copy may still be under way when the call returns.

    Attributes:
        asynchronous: whether copies go on beside the device's work, so that making them early saves time.
    """

    asynchronous: bool

    @abstractmethod
    def out(self, device: Tensor, pages: PageNumbers, host: Tensor, into: PageNumbers) -> object:
        """Copy a device's pages to the host; returns what `back` must be told of them."""

    @abstractmethod
    def back(
        self, host: Tensor, pages: PageNumbers, copied: Collection[Any], device: Tensor, into: PageNumbers
    ) -> None:
        """Copy the host's pages to a device; `copied` is what the calls of `out` returned that made them."""


class DirectCopies(StateCopies):
    """Copies on a CPU, which are done at once."""

    asynchronous = False

    def out(self, device: Tensor, pages: PageNumbers, host: Tensor, into: PageNumbers) -> object:
        """See StateCopies.out."""
        _copy(device, pages, host, into)
        return None

    def back(
        self, host: Tensor, pages: PageNumbers, copied: Collection[Any], device: Tensor, into: PageNumbers
    ) -> None:
        """See StateCopies.back."""
        del copied
        _copy(host, pages, device, into)


class StreamCopies(StateCopies):
    """Copies on a GPU, on one stream for each direction, so that no thread waits.

    Pages of the device are read and written in the order of its work, pages of the host by these streams only. What
    comes back waits for the copy that took it out, and not for the work that the device was given since.

    Args:
        device: whose current stream is that of its work whenever a function is called.
    """

    asynchronous = True

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._out: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._back: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def out(self, device: Tensor, pages: PageNumbers, host: Tensor, into: PageNumbers) -> object:
        """See StateCopies.out; the host's words lie in pinned memory."""
        rows = device.index_select(0, upload(pages, self._device))
        # Also for what these pages of the host held before and is on its way back, since the work waits for that.
        self._out.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._out):
            for part, place in _runs(into):
                host[place].copy_(rows[part], non_blocking=True)
        rows.record_stream(self._out)
        return self._out.record_event()

    def back(
        self, host: Tensor, pages: PageNumbers, copied: Collection[Any], device: Tensor, into: PageNumbers
    ) -> None:
        """See StateCopies.back; the host's words lie in pinned memory."""
        work = torch.cuda.current_stream(self._device)
        for event in copied:
            self._back.wait_event(event)
        with torch.cuda.stream(self._back):
            rows = torch.empty(len(pages), host.shape[1], dtype=host.dtype, device=self._device)
            for part, place in _runs(pages):
                rows[part].copy_(host[place], non_blocking=True)
        work.wait_stream(self._back)
        rows.record_stream(work)
        device.index_copy_(0, upload(into, self._device), rows)


def upload(pages: PageNumbers, device: torch.device) -> Tensor:
    """Page numbers on the device, without waiting for the device's other work."""
    tensor = torch.from_numpy(pages)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def _copy(source: Tensor, pages: PageNumbers, target: Tensor, into: PageNumbers) -> None:
    target.index_copy_(0, torch.from_numpy(into), source.index_select(0, torch.from_numpy(pages)))


def _runs(pages: PageNumbers) -> Iterator[tuple[slice, slice]]:
    """Pages that follow each other: their places in the array, and their numbers."""
    starts = [0, *(np.flatnonzero(np.diff(pages) != 1) + 1).tolist(), len(pages)]
    for start, end in pairwise(starts):
        yield slice(start, end), slice(int(pages[start]), int(pages[start]) + end - start)
