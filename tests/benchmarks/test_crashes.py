"""One round of killing a server under load; `benchmarks/durability/crashes.py` runs a hundred."""

from bundles import IMAGE, write_models
from durability.crashes import crash


def test_a_server_killed_under_load_has_lost_nothing_that_was_answered(tmp_path):
    models = write_models(tmp_path / "models")
    settings = {"threads": 1, "lanes": 1, "store": f"sqlite:{tmp_path / 'store'}", "state_bytes": 4096}
    counts = crash(models, {"prototypes": IMAGE, "gradients": IMAGE}, settings, seconds=1.0, seed=0)
    assert counts["made"] > 10
    assert counts["deleted"] > 0
    assert not [problem for problem in counts if problem.startswith("problem")]
