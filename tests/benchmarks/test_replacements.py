"""A few kills of workers under load; `benchmarks/hostile/replacements.py` goes on to a thousand."""

import pytest
from hostile.replacements import growth, is_well, run


@pytest.mark.slow
def test_workers_that_are_killed_under_load_are_replaced_and_no_answer_is_lost(tmp_path):
    told = []
    found = run(tmp_path, 3, told.append)
    assert is_well(found), found
    assert found["replacements"] >= 3
    assert 1 <= len(told) <= 3
    assert found["answers"] > found["adaptations"] > 0
    assert found["interrupted"] > 0


def test_what_is_left_behind_at_each_kill_is_noticed():
    good = {"problems": {}, "tracebacks_in_log": 0, "exit_code": 0, "growth": {}}
    for left, well in ((0, True), (1, False)):
        gains = {name: growth([30 + left * kill for kill in range(20)]) for name in ("descriptors", "mappings")}
        assert is_well({**good, "growth": {"resident_bytes": 0, **gains}}) is well
    flat = {"resident_bytes": growth([0, 5e6, 9e6, 10e6, 10e6, 10e6]), "descriptors": 0, "mappings": 0}
    assert flat["resident_bytes"] == 0
    assert not is_well({**good, "growth": flat, "problems": {"Predict: UNAVAILABLE, ": 1}})
