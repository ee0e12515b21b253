"""One round of each kind of kill under load; `benchmarks/durability/crashes.py` runs a hundred."""

import pytest
from bundles import IMAGE, write_models
from durability import crashes
from durability.crashes import MODULES, SERVER, crash
from forks import ServerProcess


@pytest.mark.parametrize("victim", [SERVER, *(pytest.param(victim, marks=pytest.mark.slow) for victim in MODULES)])
def test_a_server_killed_under_load_has_lost_nothing_that_was_answered(tmp_path, monkeypatch, victim):
    monkeypatch.setattr(crashes, "ServerProcess", ServerProcess)
    models = write_models(tmp_path / "models")
    settings = {"threads": 1, "store": f"sqlite:{tmp_path / 'store'}", "state_bytes": 4096}
    settings |= {"lanes": 1} if victim == SERVER else {"lanes": 2, "frontends": 2}
    shapes, seconds = {"prototypes": IMAGE, "gradients": IMAGE}, 1.0 if victim == SERVER else 5.0
    counts = crash(models, shapes, settings, seconds, seed=0, victim=victim)
    assert counts["made"] > 10
    assert counts["deleted"] > 0
    assert counts["updates"] > 0
    assert not [problem for problem in counts if problem.startswith("problem")]
