"""Decides which task states are on a device and which in its host's memory; their content is kept elsewhere.

A state that is being computed with is claimed and stays on the device. The others may leave it, the one that was used
longest ago first, for the host, where there is room. A state is freed when nothing refers to its handle any more.
"""

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

from innerloop_server.engine.interface import MemoryFullError, TaskState


class Place:
    """The present place of one state; it outlives the state's handle by the moment it takes to free it.

    Attributes:
        size: units that it takes.
        on_device: or else on the host.
        users: how many have claimed it.
        freed: whether the handle is gone.
    """

    __slots__ = ("freed", "on_device", "size", "users")

    def __init__(self, size: int) -> None:
        self.size = size
        self.on_device = True
        self.users = 0
        self.freed = False


P = TypeVar("P", bound=Place)


class PooledState(TaskState, Generic[P]):
    """A handle on one state of a pool; its memory is free again when nothing refers to it.

    Attributes:
        place: where it lies.
        ways: classes of the task.
    """

    __slots__ = ("_pool", "place", "signature", "size_bytes", "ways")

    def __init__(self, pool: "StatePool[P]", place: P, signature: Hashable, ways: int) -> None:
        self._pool = pool
        self.place = place
        self.signature = signature
        self.size_bytes = place.size * pool.unit_bytes
        self.ways = ways

    def __del__(self) -> None:
        self._pool.discard(self.place)


class StatePool(ABC, Generic[P]):
    """Keeps the accounts of states on a device and on its host. Any number of threads may call.

    A subclass holds the content and says how much room there is; its functions are called with the lock held.

    Attributes:
        unit_bytes: what sizes are counted in.
    """

    unit_bytes: int

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: OrderedDict[P, None] = OrderedDict()  # on the device and not claimed, oldest use first
        self._discarded: deque[P] = deque()

    @property
    def device_bytes(self) -> int:
        """Bytes of states on the device."""
        with self._lock:
            self._free_discarded()
            return self._used()[0] * self.unit_bytes

    @property
    def host_bytes(self) -> int:
        """Bytes of states on the host that have left the device."""
        with self._lock:
            self._free_discarded()
            return self._used()[1] * self.unit_bytes

    def claim(self, states: Sequence[PooledState[P]]) -> list[P]:
        """The places of states on the device, which they don't leave until they are released.

        Raises:
            MemoryFullError: they are not all on the device, and it has no room; none is claimed.
        """
        places = [state.place for state in states]
        with self._lock:
            self._free_discarded()
            for place in places:
                place.users += 1
                self._idle.pop(place, None)
            try:
                self._bring_in([place for place in dict.fromkeys(places) if not place.on_device])
            except BaseException:
                self._release(places)
                raise
        return places

    def release(self, states: Sequence[PooledState[P]]) -> None:
        """Undo one claim of states: they may leave the device again."""
        with self._lock:
            self._release([state.place for state in states])

    def discard(self, place: P) -> None:
        """Free a state. Never waits: it may run in the middle of anything."""
        self._discarded.append(place)
        if self._lock.acquire(blocking=False):  # else whoever holds the lock, or takes it next, frees it
            try:
                self._free_discarded()
            finally:
                self._lock.release()

    @abstractmethod
    def _used(self) -> tuple[int, int]:
        """Units of states on the device and on the host."""

    @abstractmethod
    def _room(self) -> tuple[int, int]:
        """Units that are free on the device and on the host."""

    @abstractmethod
    def _move_out(self, places: Sequence[P]) -> None:
        """Move the content of states to the host, where there is room for all of them."""

    @abstractmethod
    def _move_in(self, places: Sequence[P]) -> None:
        """Move the content of states to the device, where there is room for all of them."""

    @abstractmethod
    def _free(self, place: P) -> None:
        """Let go of the content of a state, wherever it is."""

    def _make_room(self, size: int) -> None:
        """Move the least recently used states off the device until `size` units are free there.

        Raises:
            MemoryFullError: the host has no room for as many; none leaves.
        """
        leaving: list[P] = []
        free, room = self._room()
        missing = size - free
        for place in self._idle:
            if missing <= 0 or place.size > room:
                break
            leaving.append(place)
            missing -= place.size
            room -= place.size
        if missing > 0:
            raise MemoryFullError
        if leaving:
            self._move_out(leaving)
            for place in leaving:
                del self._idle[place]
                place.on_device = False

    def _bring_in(self, places: Sequence[P]) -> None:
        """Have states come back to the device, for which others leave it."""
        if places:
            self._make_room(sum(place.size for place in places))
            self._move_in(places)
            for place in places:
                place.on_device = True

    def _free_discarded(self) -> None:
        while self._discarded:
            place = self._discarded.popleft()
            self._idle.pop(place, None)
            place.freed = True
            self._free(place)

    def _release(self, places: Sequence[P]) -> None:
        for place in places:
            place.users -= 1
            if not place.users and place.on_device:
                self._idle[place] = None
