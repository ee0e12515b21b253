"""How many tasks a run is measured with: fewer after a short one, as many as are asked for, and always said."""

from pathlib import Path

import pytest
from shell import innerloop

from innerloop_learner.manifest import read_manifest
from innerloop_trainer.measuring import is_short, tasks_to_measure
from innerloop_trainer.recipes import read_recipe

RUN = ("--data", "digits", "--ways", 2, "--train-ways", 2, "--queries", 2, "--backbone", "mlp", "--no-report")


@pytest.mark.parametrize(
    ("method", "iterations", "tasks", "short"),
    [
        ("maml", 20, 100, True),
        ("maml", 250, 250, False),
        ("maml", 5000, 600, False),
        ("scratch", 1, 600, False),  # it has nothing to learn in more steps
    ],
)
def test_a_short_run_is_measured_with_fewer_tasks(method: str, iterations: int, tasks: int, *, short: bool) -> None:
    assert tasks_to_measure(method, iterations, 600) == tasks
    assert is_short(method, iterations) == short


@pytest.mark.parametrize(
    ("asked", "validation", "test"), [((), 100, 100), (("--validation-episodes", 3, "--test-episodes", 4), 3, 4)]
)
def test_the_number_of_tasks_is_kept(asked: tuple[str | int, ...], validation: int, test: int, tmp_path: Path) -> None:
    status, said, _ = innerloop("train", "protonet", *RUN, "--iterations", 2, *asked, "--out", tmp_path / "run")
    assert status == 0
    protocols = [metric.protocol for metric in read_manifest(tmp_path / "run" / "bundle").metrics]
    assert protocols == [
        f"inductive, 2-way 1-shot, {count} {split} episodes, digits"
        for count, split in ((validation, "validation"), (test, "test"))
    ]
    assert f"{test} test episodes" in " ".join(said.split())
    assert read_recipe(tmp_path / "run" / "recipe.toml").settings["validation_episodes"] == validation
