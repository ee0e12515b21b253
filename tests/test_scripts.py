"""What developers run of scripts/ holds what it says."""

import subprocess
import sys

import gpu_tests
import pytest
import suite_costs

REPORT = """<testsuites><testsuite>
<testcase classname="tests.e2e.test_life" name="test_a" time="1.5"/>
<testcase classname="tests.learner.test_x.TestGroup" name="test_b" time="0.25"/>
<testcase classname="tests.e2e.test_health" name="test_c" time="2"><failure/></testcase>
</testsuite></testsuites>"""


@pytest.mark.parametrize("stage", gpu_tests.STAGES)
def test_a_stage_of_gpu_tests_runs_what_is_there(stage):
    for command in gpu_tests.commands(stage, "folder"):
        files = [word for word in command if word.startswith(("tests/", "benchmarks/"))]
        assert files
        assert [file for file in files if not (gpu_tests.ROOT / file).exists()] == []


def test_a_stage_that_takes_too_long_is_ended_and_has_failed(monkeypatch):
    monkeypatch.setattr(gpu_tests, "STAGE_SECONDS", 0)
    monkeypatch.setattr(gpu_tests, "commands", lambda *_: [[sys.executable, "-c", "import time; time.sleep(60)"]])
    outcome = gpu_tests.run_stage("bench-onnx")
    assert (outcome.passed, outcome.failed) == (0, 1)
    assert "ended after 1 s" in outcome.failures[0]


def test_a_report_becomes_counts_of_a_stage(monkeypatch):
    def commands(_, folder):
        code = f"import pathlib; pathlib.Path({folder!r}, 'report.xml').write_text({REPORT!r}); raise SystemExit(1)"
        return [[sys.executable, "-c", code]]

    monkeypatch.setattr(gpu_tests, "commands", commands)
    outcome = gpu_tests.run_stage("servers")
    assert (outcome.passed, outcome.failed, outcome.skipped) == (2, 1, 0)
    assert outcome.failures == ["tests.e2e.test_health::test_c"]


def test_costs_are_summed_by_folder_and_by_file(tmp_path):
    (tmp_path / "report.xml").write_text(REPORT)
    command = [sys.executable, suite_costs.__file__, tmp_path / "report.xml"]
    shown = [
        subprocess.run([*command, "--by", by], capture_output=True, text=True, check=True).stdout.splitlines()
        for by in ("folder", "file")
    ]
    assert [line.split() for line in shown[0][1:4]] == [
        ["3.5", "2", "tests/e2e"],
        ["0.2", "1", "tests/learner"],
        ["3.8", "3", "all"],
    ]
    assert shown[1][1].split() == ["2.0", "1", "tests/e2e/test_health"]
