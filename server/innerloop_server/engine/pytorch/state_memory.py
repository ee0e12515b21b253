"""Memory for task states: pages on the device, and behind them pages of the host for those that are not in use.

All models and shapes share one pool of pages, so that no memory is lost between states of different sizes, and a batch
of states is gathered by one indexed read. Any number of threads may call.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np
import structlog
import torch
from torch import Tensor

from innerloop_server.engine.interface import MemoryFullError
from innerloop_server.engine.pytorch.state_copies import DirectCopies, PageNumbers, StateCopies, StreamCopies, upload
from innerloop_server.engine.pytorch.state_layout import PAGE_WORDS, WORD_BYTES, StateLayout
from innerloop_server.engine.states.pool import Place, PooledState, StatePool

PAGE_BYTES = PAGE_WORDS * WORD_BYTES

PREFETCHED_STATES, PREFETCHED_BYTES = 256, 2**26
"""Most states, and most bytes of them, that are brought in at a time: as many as a large batch has, since the device's
work waits for all of them."""

PREFETCHED_SHARE = 0.5
"""Largest share of the device's memory that one prefetch fills, so that it drives out nothing that was asked for."""


class PagedPlace(Place):
    """The place of one state: numbers of its pages, on the device or on the host. Sizes are in pages."""

    __slots__ = ("copied", "pages")

    def __init__(self, pages: PageNumbers) -> None:
        super().__init__(len(pages))
        self.pages = pages
        self.copied: object = None  # what is known of its copy to the host


class StoredState(PooledState[PagedPlace]):
    """A handle on one state.

    Attributes:
        signature: its layout: states of one layout can be read together.
    """

    __slots__ = ()

    signature: StateLayout


class StateMemory(StatePool[PagedPlace]):
    """Pages of task states on one device, and behind them pages of its host.

    Args:
        device: where states are computed with.
        size_bytes: of the device's pages.
        host_bytes: of the host's pages; zero for none.
        copies: makes those between device and host; what suits the device by default.
    """

    unit_bytes = PAGE_BYTES

    def __init__(
        self, device: torch.device, size_bytes: int, host_bytes: int = 0, copies: StateCopies | None = None
    ) -> None:
        super().__init__()
        self._copies = copies or (StreamCopies(device) if device.type == "cuda" else DirectCopies())
        self._device = _Pages(size_bytes // PAGE_BYTES, device)
        self._host = _Pages(host_bytes // PAGE_BYTES, torch.device("cpu"), pinned=device.type == "cuda")
        self._requested: deque[PagedPlace] = deque()

    def put(self, layout: StateLayout, rows: Tensor, ways: Sequence[int]) -> list[StoredState]:
        """Keep rows [T, pages * PAGE_WORDS] of states, one for each of `ways`.

        Raises:
            MemoryFullError: there is no room for all of them; none is kept.
        """
        with self._lock:
            self._free_discarded()
            self._make_room(layout.pages * len(ways))
            pages = self._device.take(layout.pages * len(ways))
        try:
            # Pages are written as a whole: nothing of what they held before is left.
            self._device.write(pages, rows[: len(ways)].reshape(-1, PAGE_WORDS))
        except BaseException:
            with self._lock:
                self._device.free(pages)
            raise
        places = [PagedPlace(own) for own in pages.reshape(len(ways), layout.pages)]
        with self._lock:
            self._idle.update(dict.fromkeys(places))
        return [StoredState(self, place, layout, own) for place, own in zip(places, ways, strict=True)]

    def request_prefetch(self, state: StoredState) -> None:
        """Ask for a state to be brought in before it is claimed. Never waits."""
        if self._copies.asynchronous:
            self._requested.append(state.place)

    def prefetch(self) -> None:
        """Bring states that were asked for to the device, as far as there is room, in the order of its work.

        The rest waits for the next call. A state that has no room by itself, or whose copy fails, is brought in when
        it is claimed.
        """
        with self._lock:
            self._free_discarded()
            chosen = self._next_requested()
            try:
                self._bring_in(chosen)
            except MemoryFullError:
                return
            except Exception as error:
                structlog.get_logger().warning("states not prefetched", reason=str(error))
                return
            self._idle.update(dict.fromkeys(chosen))

    def _next_requested(self) -> list[PagedPlace]:
        """States to bring in, in the order in which they were asked for; those that are there count as used."""
        share = min(PREFETCHED_BYTES // PAGE_BYTES, int(PREFETCHED_SHARE * self._device.count))
        room = min(
            share, self._device.available + self._host.available
        )  # states that make room on the device go to the host
        chosen: dict[PagedPlace, None] = {}
        while self._requested and len(chosen) < PREFETCHED_STATES:
            place = self._requested[0]
            if place in self._idle:
                self._idle.move_to_end(place)
            elif not place.on_device and not place.freed and place not in chosen:
                if len(place.pages) <= room:
                    chosen[place] = None
                    room -= len(place.pages)
                elif chosen:
                    break  # it comes first next time; one that has no room even by itself is dropped
            self._requested.popleft()
        return list(chosen)

    def read(self, table: Tensor) -> Tensor:
        """Rows [T, pages * PAGE_WORDS] of the states whose pages are given, [T, pages] on the device."""
        return self._device.read(table.flatten()).view(len(table), -1)

    def _used(self) -> tuple[int, int]:
        return self._device.used, self._host.used

    def _room(self) -> tuple[int, int]:
        return self._device.available, self._host.available

    def _move_out(self, places: Sequence[PagedPlace]) -> None:
        """See StatePool: all in one copy."""
        leaving = _pages_of(places)
        taken = self._host.take(len(leaving))
        try:
            copied = self._copies.out(self._device.words, leaving, self._host.words, taken)
        except BaseException:
            self._host.free(taken)
            raise
        for place, own in zip(places, _split(taken, places), strict=True):
            self._device.free(place.pages)
            place.pages, place.copied = own, copied

    def _move_in(self, places: Sequence[PagedPlace]) -> None:
        """See StatePool: all in one copy."""
        coming = _pages_of(places)
        taken = self._device.take(len(coming))
        copied = {place.copied for place in places}
        try:
            self._copies.back(self._host.words, coming, copied, self._device.words, taken)
        except BaseException:
            self._device.free(taken)
            raise
        for place, own in zip(places, _split(taken, places), strict=True):
            self._host.free(place.pages)
            place.pages, place.copied = own, None

    def _free(self, place: PagedPlace) -> None:
        (self._device if place.on_device else self._host).free(place.pages)


class _Pages:
    """A fixed number of pages on one device, and which of them are free."""

    def __init__(self, count: int, device: torch.device, *, pinned: bool = False) -> None:
        # Never written to before they are taken, so that on a CPU they only take memory then.
        self.words = torch.empty(count, PAGE_WORDS, dtype=torch.int32, device=device, pin_memory=pinned and count > 0)
        self.count = count
        self.used = 0
        self._freed: deque[PageNumbers] = deque()
        self._untouched = 0

    @property
    def available(self) -> int:
        """Free pages."""
        return self.count - self.used

    def take(self, count: int) -> PageNumbers:
        """Numbers of pages that are free; there must be as many."""
        self.used += count
        parts: list[PageNumbers] = []
        while count and self._freed:
            part = self._freed.popleft()
            if len(part) > count:
                self._freed.appendleft(part[count:])
                part = part[:count]
            parts.append(part)
            count -= len(part)
        if count:
            parts.append(np.arange(self._untouched, self._untouched + count))
            self._untouched += count
        return np.concatenate(parts) if len(parts) != 1 else parts[0]

    def free(self, pages: PageNumbers) -> None:
        """Give pages back."""
        self.used -= len(pages)
        self._freed.append(pages)

    def read(self, pages: Tensor) -> Tensor:
        """Words of pages [P], [P, PAGE_WORDS]."""
        return self.words.index_select(0, pages)

    def write(self, pages: PageNumbers, words: Tensor) -> None:
        """Overwrite pages [P] with words [P, PAGE_WORDS]."""
        self.words.index_copy_(0, upload(pages, self.words.device), words)


def _pages_of(places: Sequence[PagedPlace]) -> PageNumbers:
    return np.concatenate([place.pages for place in places])


def _split(pages: PageNumbers, places: Sequence[PagedPlace]) -> list[PageNumbers]:
    """Pages for each of the places, as many as each has now."""
    return np.split(pages, np.cumsum([len(place.pages) for place in places])[:-1])
