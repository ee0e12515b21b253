"""Memory for task states of ONNX graphs. Each state has tensors of its own, and a budget limits their bytes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from innerloop_server.engine.onnx.device import OnnxDevice, Tensors
from innerloop_server.engine.states.pool import Place, PooledState, StatePool


class OnnxPlace(Place):
    """The place of one state: its tensors, on the device or on the host. Sizes are in bytes."""

    __slots__ = ("tensors",)

    def __init__(self, size: int, tensors: Tensors) -> None:
        super().__init__(size)
        self.tensors = tensors


class OnnxState(PooledState[OnnxPlace]):
    """A handle on one state."""

    __slots__ = ()


class OnnxStates(StatePool[OnnxPlace]):
    """Task states on one device, and on its host when the device is full.

    Args:
        device: device that computes with the states.
        size_bytes: most bytes of states on the device.
        host_bytes: most bytes of states on the host; zero keeps none there.
    """

    unit_bytes = 1

    def __init__(self, device: OnnxDevice, size_bytes: int, host_bytes: int = 0) -> None:
        super().__init__()
        self._device = device
        self._size_bytes, self._host_size_bytes = size_bytes, host_bytes
        self._device_used = self._host_used = 0

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
            self._make_room(size * len(ways))
            self._device_used += size * len(ways)
        try:
            places = [OnnxPlace(size, tensors) for tensors in device.split(batch, len(ways))]
        except BaseException:
            with self._lock:
                self._device_used -= size * len(ways)
            raise
        with self._lock:
            self._idle.update(dict.fromkeys(places))
        return [OnnxState(self, place, signature, own) for place, own in zip(places, ways, strict=True)]

    @contextmanager
    def claimed(self, states: Sequence[OnnxState]) -> Iterator[list[Tensors]]:
        """The tensors of states, which stay on the device inside this context.

        Raises:
            MemoryFullError: some states are not on the device, and there is no room for them.
        """
        places = self.claim(states)
        try:
            yield [place.tensors for place in places]
        finally:
            self.release(states)

    def _used(self) -> tuple[int, int]:
        return self._device_used, self._host_used

    def _room(self) -> tuple[int, int]:
        return self._size_bytes - self._device_used, self._host_size_bytes - self._host_used

    def _move_out(self, places: Sequence[OnnxPlace]) -> None:
        for place, tensors in zip(places, [self._device.to_host(place.tensors) for place in places], strict=True):
            place.tensors = tensors
            self._device_used -= place.size
            self._host_used += place.size

    def _move_in(self, places: Sequence[OnnxPlace]) -> None:
        for place, tensors in zip(places, [self._device.from_host(place.tensors) for place in places], strict=True):
            place.tensors = tensors
            self._device_used += place.size
            self._host_used -= place.size

    def _free(self, place: OnnxPlace) -> None:
        if place.on_device:
            self._device_used -= place.size
        else:
            self._host_used -= place.size
        place.tensors = {}
