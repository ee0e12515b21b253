"""`innerloop compare` trains several methods on one budget and measures them alike."""

import json
from pathlib import Path

import pytest
from shell import innerloop, mistake

from innerloop_trainer import comparison

COMPARE = [
    "compare", "--data", "digits", "--ways", "2", "--queries", "3", "--test-episodes", "3",
    "--backbone-set", "width=4",
]  # fmt: skip


def test_methods_are_trained_on_one_budget_and_measured_on_the_same_tasks(tmp_path: Path) -> None:
    options = [*COMPARE, "--iterations", "2", "--class-balance", "proportional", "--out", tmp_path]
    answer = innerloop(*options, "--methods", "protonet, maml", "--set", "maml.steps=2")
    assert answer.status == 0
    result = json.loads((tmp_path / "comparison.json").read_text())
    assert {each["method"] for each in result["compared"]} == {"protonet", "maml"}
    assert result["compared"][0]["value"] >= result["compared"][1]["value"]
    assert result["protocol"] == "inductive, 2-way 1-shot, 3 test episodes, digits"
    for each in result["compared"]:
        assert each["iterations"] == 2
        assert each["minutes"] > 0
        assert each["adapt_ms"] > 0
        assert each["state_bytes"] > 0
    config = json.loads((tmp_path / "runs" / "maml" / "config.json").read_text())
    assert config["steps"] == 2
    assert config["class_balance"] == "proportional"
    assert "| `maml` | initialisation |" in (tmp_path / "comparison.md").read_text()
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    for word in ("protonet", "maml", "outer steps"):
        assert word in answer.output


def test_finished_runs_are_not_trained_again(tmp_path: Path) -> None:
    options = [*COMPARE, "--iterations", "2", "--out", tmp_path, "--methods", "protonet"]
    innerloop(*options)
    log = (tmp_path / "runs" / "protonet" / "log.csv").read_text()
    assert innerloop(*options).status == 0
    assert (tmp_path / "runs" / "protonet" / "log.csv").read_text() == log


def test_minutes_become_outer_steps_that_a_run_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "SECONDS_OF_TRIAL", 0.1)
    options = [*COMPARE, "--minutes", "0.001", "--out", tmp_path, "--methods", "protonet"]
    assert innerloop(*options).status == 0
    first = json.loads((tmp_path / "comparison.json").read_text())["compared"][0]["iterations"]
    assert first >= 1
    assert innerloop(*options).status == 0
    assert json.loads((tmp_path / "comparison.json").read_text())["compared"][0]["iterations"] == first


def test_runs_of_another_budget_are_not_compared(tmp_path: Path) -> None:
    options = [*COMPARE, "--out", tmp_path]
    innerloop(*options, "--iterations", "1", "--methods", "protonet")
    scratch = ["--methods", "protonet,scratch", "--set", "scratch.steps=1"]
    assert innerloop(*options, "--iterations", "2", *scratch).status == 0
    result = json.loads((tmp_path / "comparison.json").read_text())
    assert [(each["method"], each["iterations"]) for each in result["compared"]] == [("scratch", 1)], "learns nothing"
    assert "--iterations is 1 there, 2 here" in result["failed"][0]["reason"]


def test_a_method_that_fails_takes_no_other_with_it(tmp_path: Path) -> None:
    options = [*COMPARE, "--iterations", "1", "--out", tmp_path]
    answer = innerloop(*options, "--methods", "maml,protonet", "--set", "maml.rate=-1")
    assert answer.status == 0
    result = json.loads((tmp_path / "comparison.json").read_text())
    assert [each["method"] for each in result["compared"]] == ["protonet"]
    assert result["failed"] == [{"method": "maml", "reason": "maml: the inner rate must be positive, not -1"}]
    assert "`maml` is missing: maml: the inner rate" in (tmp_path / "comparison.md").read_text()


def test_where_no_method_can_be_compared_nothing_is_written(tmp_path: Path) -> None:
    options = [*COMPARE, "--iterations", "1", "--out", tmp_path, "--methods", "maml,protonet", "--augment", "unknown"]
    assert "no method could be compared: " in mistake(*options)
    assert not (tmp_path / "comparison.json").exists()


def test_regression_is_compared_by_its_squared_error(tmp_path: Path) -> None:
    options = ["compare", "--data", "sinusoid", "--shots", "5", "--iterations", "1", "--test-episodes", "3"]
    answer = innerloop(*options, "--out", tmp_path, "--methods", "maml,protonet", "--set", "maml.rate=0.001")
    assert answer.status == 0
    result = json.loads((tmp_path / "comparison.json").read_text())
    assert result["metric"] == "mean_squared_error"
    assert [each["method"] for each in result["failed"]] == ["protonet"]


def test_one_estimator_trains_all_methods_that_it_suits(tmp_path: Path) -> None:
    options = [*COMPARE, "--data", "digits?domains=rotation", "--iterations", "1", "--out", tmp_path]
    answer = innerloop(*options, "--methods", "protonet,partial-maml", "--estimator", "mldg")
    assert answer.status == 0, answer.error
    assert json.loads((tmp_path / "runs/protonet/config.json").read_text())["estimator"] == "mldg"
    assert "partial-maml is left out: estimator mldg: no gradient" in " ".join(answer.output.split())


def test_mistakes_are_told_before_anything_is_trained(tmp_path: Path) -> None:
    out = ["--out", tmp_path / "out"]
    one = ["--iterations", "1"]
    assert "name one budget" in mistake(*COMPARE, *out, "--methods", "maml")
    assert "name one budget" in mistake(*COMPARE, *out, *one, "--minutes", "1", "--methods", "maml")
    assert "--minutes must be a positive number" in mistake(*COMPARE, *out, "--minutes", "-1", "--methods", "maml")
    assert "names no method" in mistake(*COMPARE, *out, *one, "--methods", ",")
    assert "unknown method 'mamml'" in mistake(*COMPARE, *out, *one, "--methods", "maml,mamml")
    assert "METHOD.NAME=VALUE" in mistake(*COMPARE, *out, *one, "--methods", "maml", "--set", "rate=1")
    assert "does not name" in mistake(*COMPARE, *out, *one, "--methods", "maml", "--set", "anil.rate=1")
    assert "too few" in mistake(*COMPARE, *out, *one, "--methods", "maml", "--ways", "3")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["comparison.json", "comparison.md", "comparison.png"])
def test_a_file_of_another_origin_is_not_replaced_by_a_comparison(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    options = [*COMPARE, "--out", tmp_path, "--iterations", 1, "--methods", "maml"]
    assert f"{name} is there and not of a comparison" in mistake(*options)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "mine"}


def test_a_run_without_a_finite_figure_says_what_to_change(tmp_path: Path) -> None:
    diverging = ["--iterations", "1", "--set", "rate=1000", "--validation-episodes", "2"]
    refused = mistake("train", "maml", "--data", "sinusoid", "--shots", "5", *diverging, "--out", tmp_path / "run")
    assert "adapting diverges on unseen tasks" in refused or "training diverged" in refused
