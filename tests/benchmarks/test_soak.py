"""A few seconds of everything at once; `benchmarks/hostile/soak.py` goes on for half an hour."""

from hostile.soak import is_flat, is_well, run


def test_nothing_goes_wrong_while_calls_are_cancelled_and_models_change(tmp_path):
    found = run(tmp_path, 4.0, lanes=1, threads=1)
    assert is_well({**found, "flat": True}), found  # memory still grows in the first seconds
    for what in ("Adapt answered", "Predict answered", "Predict cancelled", "reloads", "migrations"):
        assert found["counts"][what] > 0
    assert found["found"]["store"] > 0


def test_memory_that_grows_is_not_flat():
    assert is_flat([50, 80, 100, 100, 101, 102, 100, 101])
    assert not is_flat([50, 80, 100, 101, 103, 104, 107, 108])
