"""The wall clock as adaptations live by it."""

import time


class WallClock:
    """Nanoseconds of the wall clock, read once when the process starts and counted on from there.

    Setting the clock of the machine while the server runs therefore neither ends adaptations nor prolongs their life;
    the time in which the machine was suspended counts.
    """

    def __init__(self) -> None:
        self._offset = time.time_ns() - _elapsed()

    def __call__(self) -> int:
        """Nanoseconds since the epoch."""
        return self._offset + _elapsed()


def _elapsed() -> int:
    boot_time = getattr(time, "CLOCK_BOOTTIME", None)  # Linux; unlike the monotonic clock, it goes on in suspension
    return time.monotonic_ns() if boot_time is None else time.clock_gettime_ns(boot_time)
