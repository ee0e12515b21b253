"""A disk that is full when training has ended: the run says what is missing, and `--resume` writes it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from shell import innerloop, mistake

from innerloop_learner import disk
from innerloop_learner.bundle import load_bundle

TRAIN = [
    *("train", "maml", "--data", "sinusoid", "--shots", 5, "--queries", 3, "--iterations", 4, "--meta-batch", 2),
    *("--validate-every", 2, "--validation-episodes", 2, "--test-episodes", 2, "--calibration-episodes", 100),
    *("--set", "rate=0.01", "--device", "cpu", "--workers", 1),
]

FULL = Path("/dev/full")
"""A file of Linux whose disk is always full: the system itself refuses what is written to it."""

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


@pytest.fixture
def full_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Path], bool]], None]:
    """A function after whose call the disk is full for those files for which another one is true."""
    written = disk._write

    def fill(full: Callable[[Path], bool]) -> None:
        monkeypatch.setattr(disk, "_write", lambda path, content: written(FULL if full(path) else path, content))

    return fill


def test_a_run_says_which_file_found_no_room_and_resume_writes_it(
    full_for: Callable[[Callable[[Path], bool]], None], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    curve, bundle = run / "learning_curve.png", run / "bundle"
    start = [*TRAIN, "--out", run]

    full_for(lambda path: "recipe.toml" in path.name)
    assert mistake(*start) == (
        f"the recipe of {run} could not be written (No space left on device); make room, and give the same command "
        "again"
    )
    full_for(lambda path: "latest" in path.name)
    assert mistake(*start).startswith(f"the first files of {run} could not be written (No space left on device)")
    full_for(lambda path: path.name == ".log.csv.new")
    assert mistake(*start) == (
        f"the logs of {run} could not be written (No space left on device); make room, and go on with --resume"
    )
    start.append("--resume")
    full_for(lambda path: path.name == f".{curve.name}.new")
    missing = "of {} could not be written (No space left on device); make room, and --resume writes it".format
    assert mistake(*start) == f"the learning curve {missing(run)}"
    assert not curve.exists()

    validated = load_bundle(bundle).manifest
    full_for(lambda path: path.name == "parameters.safetensors")
    assert mistake(*start) == f"the figure on the test split {missing(run)}"
    assert load_bundle(bundle).manifest == validated
    full_for(lambda path: path.name == "parameters.safetensors" and len(load_bundle(bundle).manifest.metrics) > 1)
    assert mistake(*start) == f"the calibration {missing(run)}"
    assert load_bundle(bundle).manifest.calibration is None

    full_for(lambda path: path.name == ".report.html.new")
    status, output, _ = innerloop(*start)
    assert status == 0
    assert f"no report: the report {missing(run)}" in output
    full_for(lambda _: False)
    assert innerloop(*start).status == 0
    assert load_bundle(bundle).manifest.calibration is not None
    assert curve.is_file()
    assert (run / "report.html").is_file()
    assert not [path for path in run.rglob("*") if ".new" in path.name or ".incoming" in path.name]
