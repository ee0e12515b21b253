"""Memory for task states of ONNX graphs: each state in tensors of its own, under a budget of the device's bytes.

Where the device has no room, the least recently used states move to the host's memory. Any number of threads may call.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Hashable, Sequence

from innerloop_server.engine.interface import MemoryFullError, TaskState
from innerloop_server.engine.onnx.device import OnnxDevice, Tensors


class _Kept:
    """One state, wherever it is now; outlives its handle by the moment it takes to notice."""

    __slots__ = ("on_device", "size_bytes", "tensors")

    def __init__(self, size_bytes: int, tensors: Tensors) -> None:
        self.size_bytes = size_bytes
        self.tensors = tensors
        self.on_device = True


class OnnxState(TaskState):
    """A handle on one state, whose memory is free again when nothing refers to it.

    Attributes:
        kept: the state.
        ways: classes of the task.
    """

    __slots__ = ("_memory", "kept", "signature", "ways")

    def __init__(self, memory: "OnnxStates", kept: _Kept, signature: Hashable, ways: int) -> None:
        self._memory = memory
        self.kept = kept
        self.signature = signature
        self.ways = ways

    @property
    def size_bytes(self) -> int:  # type: ignore[override]
        """Memory it takes."""
        return self.kept.size_bytes

    def __del__(self) -> None:
        self._memory.discard(self.kept)


class OnnxStates:
    """Task states on one device, and behind them on its host.

    Args:
        device: where they are computed with.
        size_bytes: that they may take there.
        host_bytes: that those may take that had to leave it; zero for none.
    """

    def __init__(self, device: OnnxDevice, size_bytes: int, host_bytes: int = 0) -> None:
        self._device = device
        self._size_bytes, self._host_size_bytes = size_bytes, host_bytes
        self._device_bytes = self._host_bytes = 0
        self._lock = threading.Lock()
        self._recent: OrderedDict[_Kept, None] = OrderedDict()  # on the device, oldest use first
        self._discarded: deque[_Kept] = deque()

    @property
    def device_bytes(self) -> int:
        """Bytes of states on the device."""
        with self._lock:
            self._free_discarded()
            return self._device_bytes

    @property
    def host_bytes(self) -> int:
        """Bytes of states on the host that have left the device."""
        with self._lock:
            self._free_discarded()
            return self._host_bytes

    def put(self, batch: Tensors, ways: Sequence[int]) -> list[OnnxState]:
        """Keep the first states of a batch [T, ...], one for each of `ways`.

        Raises:
            MemoryFullError: there is no room for all of them; none is kept.
        """
        device = self._device
        signature = tuple((name, device.shape(tensor)[1:], device.dtype(tensor)) for name, tensor in batch.items())
        size = sum(device.size_bytes(tensor) // device.shape(tensor)[0] for tensor in batch.values())
        with self._lock:
            self._free_discarded()
            self._take(size * len(ways))
        try:
            kept = [_Kept(size, tensors) for tensors in device.split(batch, len(ways))]
        except BaseException:
            with self._lock:
                self._device_bytes -= size * len(ways)
            raise
        with self._lock:
            self._recent.update(dict.fromkeys(kept))
        return [OnnxState(self, each, signature, own) for each, own in zip(kept, ways, strict=True)]

    def get(self, states: Sequence[OnnxState]) -> list[Tensors]:
        """The tensors of states, on the device.

        Raises:
            MemoryFullError: they are not all there, and there is no room.
        """
        with self._lock:
            self._free_discarded()
            for state in states:
                if state.kept.on_device:
                    self._recent.move_to_end(state.kept)
            # One that leaves for another of the batch is in use already: what was looked up stays as long as needed.
            return [self._on_device(state.kept) for state in states]

    def discard(self, kept: _Kept) -> None:
        """Free a state. Never waits: it may run in the middle of anything."""
        self._discarded.append(kept)
        if self._lock.acquire(blocking=False):  # else whoever is at it, or comes next, does it
            try:
                self._free_discarded()
            finally:
                self._lock.release()

    def _free_discarded(self) -> None:
        while self._discarded:
            kept = self._discarded.popleft()
            if kept.on_device:
                self._recent.pop(kept, None)
                self._device_bytes -= kept.size_bytes
            else:
                self._host_bytes -= kept.size_bytes

    def _take(self, size: int) -> None:
        """Count bytes as taken on the device; the least recently used states leave it for the host."""
        leaving: list[_Kept] = []
        missing, room = self._device_bytes + size - self._size_bytes, self._host_size_bytes - self._host_bytes
        for kept in self._recent:
            if missing <= 0 or kept.size_bytes > room:
                break
            leaving.append(kept)
            missing -= kept.size_bytes
            room -= kept.size_bytes
        if missing > 0:
            raise MemoryFullError
        for kept in leaving:
            self._move_out(kept)
        self._device_bytes += size

    def _move_out(self, kept: _Kept) -> None:
        kept.tensors, kept.on_device = self._device.to_host(kept.tensors), False
        del self._recent[kept]
        self._device_bytes -= kept.size_bytes
        self._host_bytes += kept.size_bytes

    def _on_device(self, kept: _Kept) -> Tensors:
        if not kept.on_device:
            self._take(kept.size_bytes)
            kept.tensors, kept.on_device = self._device.from_host(kept.tensors), True
            self._host_bytes -= kept.size_bytes
            self._recent[kept] = None
        return kept.tensors
