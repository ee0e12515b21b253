"""The clock that adaptations live by."""

import time

from innerloop_server.adaptations.clock import WallClock


def test_setting_the_machines_clock_changes_nothing_while_the_server_runs(monkeypatch):
    clock, wall = WallClock(), time.time_ns()
    assert abs(clock() - wall) < 10**9
    monkeypatch.setattr(time, "time_ns", lambda: wall + 3600 * 10**9)
    assert abs(clock() - wall) < 10**9
    assert abs(WallClock()() - (wall + 3600 * 10**9)) < 10**9, "the next start takes the clock as it is then"
