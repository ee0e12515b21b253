"""A few seconds of everything at once; `benchmarks/hostile/soak.py` goes on for half an hour."""

import pytest
from forks import ServerProcess
from hostile import soak
from hostile.soak import growth, is_well, run


def test_nothing_goes_wrong_while_calls_are_cancelled_and_models_change(tmp_path, monkeypatch):
    monkeypatch.setattr(soak, "ServerProcess", ServerProcess)
    found = run(tmp_path, 4.0, lanes=1, threads=1)
    assert is_well({**found, "growth": 0}), found  # memory still grows in the first seconds
    for what in (
        "Adapt answered",
        "UpdateAdaptation answered",
        "Predict answered",
        "Predict cancelled",
        "reloads",
        "migrations",
    ):
        assert found["counts"][what] > 0
    assert found["found"]["store"] > 0


def test_what_grows_in_the_second_half_is_noticed():
    times = [float(each) for each in range(100)]
    assert growth(times, [min(each, 50) * 10**6 for each in range(100)]) == pytest.approx(0, abs=1)
    assert growth(times, [each * 10**6 for each in range(100)]) == pytest.approx(60e6)
