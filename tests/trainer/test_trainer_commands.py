"""train, evaluate, export and inspect, as a shell calls them."""

import io
import json
import re
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from PIL import Image
from rich.console import Console
from shell import innerloop, readable

from innerloop_learner.bundle import load_bundle
from innerloop_trainer.cli import pace, progress
from innerloop_trainer.cli.output import console
from innerloop_trainer.data import EpisodeShape, load_source, sources
from innerloop_trainer.evaluation import evaluate
from innerloop_trainer.progress import progress_of
from innerloop_trainer.runs.folder import Progress
from innerloop_trainer.runs.learning_curve import plot_learning_curve
from innerloop_trainer.runs.log import Row
from innerloop_trainer.runs.training import Report
from innerloop_trainer.search import Search, SearchReport

OPTIONS = [
    *("--data", "digits", "--ways", 2, "--queries", 3, "--iterations", 4, "--meta-batch", 2, "--steps", 1),
    *("--validate-every", 2, "--validation-episodes", 2, "--test-episodes", 25, "--backbone-set", "width=8"),
    *("--backbone-set", "norm=task", "--set", "rate=0.01", "--device", "cpu"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of MAML."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    answer = innerloop("train", "maml", *OPTIONS, "--out", folder)
    assert answer.status == 0, answer
    return folder


def test_train_leaves_a_bundle_that_says_where_it_comes_from(run: Path) -> None:
    manifest = load_bundle(run / "bundle").manifest
    assert manifest.name == "digits-maml"
    settings = {"norm": "task", "downsample": "stride", "width": 8, "noise": "none", "noise_samples": 1}
    assert manifest.learner.backbone_settings == settings
    defaults_too = {"rate": 0.01, "steps": 1, "max_steps": 20, "update_rule": "sgd"}
    assert manifest.learner.settings == defaults_too, "a default that changes later must not change this bundle"
    limits = manifest.limits
    assert (limits.trained_ways, limits.trained_shots, limits.trained_steps, limits.max_ways) == (2, 1, 1, 2)
    provenance = manifest.provenance
    assert (provenance.seed, provenance.versions["torch"]) == (0, torch.__version__)
    assert provenance.training["iterations"] == 4
    splits = [re.sub(r"\d+ (\w+) episodes", r"\1", metric.protocol) for metric in manifest.metrics]
    assert splits == ["inductive, 2-way 1-shot, validation, digits", "inductive, 2-way 1-shot, test, digits"]


def test_train_says_where_it_left_what(run: Path, tmp_path: Path) -> None:
    del run
    answer = innerloop("train", "protonet", *OPTIONS[:10], "--validation-episodes", 2, "--out", tmp_path / "run")
    assert f"Bundle: {tmp_path}/run/bundle\nLearning curve: {tmp_path}/run/learning_curve.png\n" in answer.output
    assert re.search(r"^     4  loss .* validation .*  best$", answer.output, re.MULTILINE)
    assert re.search(
        r"^accuracy \d+\.\d\d% ± \d+\.\d\d%  \(inductive, 2-way 1-shot, 100 test", answer.output, re.MULTILINE
    )


def test_a_finished_run_can_be_tested_once_more(run: Path) -> None:
    before = load_bundle(run / "bundle")
    answer = innerloop("train", "maml", *OPTIONS, "--out", run, "--resume")
    assert answer.status == 0
    after = load_bundle(run / "bundle")
    assert after.manifest.metrics == before.manifest.metrics
    assert all(torch.equal(value, before.params[name]) for name, value in after.params.items())


def test_evaluate_measures_a_run_or_a_bundle(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    options = ["--data", "digits", "--queries", 3, "--episodes", 25, "--device", "cpu"]
    of_run = innerloop("evaluate", run, *options, "--json", file)
    of_bundle = innerloop("evaluate", run / "bundle", *options)
    assert (of_run.status, of_run.output) == (0, of_bundle.output)
    figures, bundle = json.loads(file.read_text()), load_bundle(run / "bundle")
    test = bundle.manifest.metrics[1]
    assert (figures["value"], figures["confidence_interval"]) == (test.value, test.confidence_interval)
    assert figures["protocol"] == test.protocol
    assert (figures["bundle"], figures["method"]) == (bundle.manifest.digest, "maml")
    assert (figures["name"], figures["seed"], figures["steps"], figures["device"]) == ("accuracy", 0, 1, "cpu")


def test_evaluate_takes_every_part_of_the_protocol(run: Path, tmp_path: Path) -> None:
    file, bundle, source = tmp_path / "figures.json", load_bundle(run / "bundle"), load_source("digits")
    options = ["--split", "validation", "--shots", 3, "--queries", 4, "--episodes", 30, "--seed", 8, "--steps", 3]
    innerloop("evaluate", run, "--data", "digits", *options, "--protocol", "transductive", "--json", file)
    result = evaluate(
        bundle.learner,
        bundle.params,
        source.validation,
        EpisodeShape(2, 3, 4),
        split="validation",
        episodes=30,
        seed=8,
        steps=3,
        protocol="transductive",
    )
    figures = json.loads(file.read_text())
    assert figures["value"] == result.mean
    assert figures["protocol"] == "transductive, 2-way 3-shot, 3 inner steps, 30 validation episodes, digits"


def test_export_names_a_bundle_after_its_folder(run: Path, tmp_path: Path) -> None:
    first = innerloop("export", run, "--out", tmp_path / "models" / "handwriting")
    exported = load_bundle(tmp_path / "models" / "handwriting")
    assert exported.manifest.name == "handwriting"
    assert first.output.strip() == f"{tmp_path}/models/handwriting: version {exported.manifest.version}"
    assert exported.manifest.metrics == load_bundle(run / "bundle").manifest.metrics
    again = innerloop("export", tmp_path / "models" / "handwriting", "--out", tmp_path / "models" / "handwriting")
    assert again.output == first.output
    assert all(torch.equal(v, exported.params[n]) for n, v in load_bundle(run / "bundle").params.items())


def test_inspect_shows_every_figure_and_where_it_comes_from(run: Path) -> None:
    answer = innerloop("inspect", run)
    assert answer.status == 0
    for text in (
        "rate 0.01",
        "steps 1",
        "uint8 1 x 8 x 8",
        "2-way 1-shot",
        "class balance",
        "validation episodes",
        "test episodes",
    ):
        assert text in answer.output
    assert readable(answer.output)


def test_inspect_as_json_is_the_manifest(run: Path) -> None:
    answer = innerloop("inspect", run / "bundle", "--json")
    assert json.loads(answer.output) == json.loads((run / "bundle" / "manifest.json").read_text())


def test_the_progress_bar_fits_a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=screen, force_terminal=True, width=80, color_system=None))
    row = Row(60_000, 1.0, 12_345.6, 1e-3, 12.3456, 0.98765, 0.97654, 0.01234)
    with progress.progress_bar("protonet", 0, 60_000, "accuracy") as show:
        show(Report(Progress(60_000, 1.0, 60_000, 0.97654), 12_345.6, 12.3456, row))
    lines = [line.rstrip() for line in re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "\n", screen.getvalue()).splitlines()]
    (validation,) = (line for line in lines if line.startswith(" 60000"))
    bar = [line for line in lines if line.startswith("protonet") and "12346" in line][-1]
    assert validation == " 60000  loss 12.3456  training 98.77%  validation 97.65% ± 1.23%  best"
    assert re.fullmatch(r"protonet ━+ 60000/60000 12346 tasks/s  loss 12\.346 0:00:00", bar)
    assert len(bar) <= 80


def test_a_log_gets_a_line_of_training_now_and_then_and_at_validations(monkeypatch: pytest.MonkeyPatch) -> None:
    log, clock = io.StringIO(), Clock(monkeypatch)
    monkeypatch.setattr(progress, "console", Console(file=log, width=80))
    row = Row(40, 1.0, 12_345.6, 1e-3, 12.3456, 0.98765, 0.97654, 0.01234)
    with progress.progress_bar("protonet", 10, 60_010, "accuracy") as show:
        for iteration in range(11, 41):  # a step in each two seconds
            clock.seconds += 2
            show(Report(Progress(iteration, best_iteration=40), 12_345.6, 12.3456, row if iteration == 40 else None))
    assert log.getvalue().splitlines() == [
        "    25  of 60010  12346 tasks/s  loss 12.346  33 h 20 min left",
        "    40  loss 12.3456  training 98.77%  validation 97.65% ± 1.23%  12346 tasks/s  33 h 19 min left  best",
    ]


def test_a_log_gets_a_line_of_reading_and_measuring_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    log, clock = io.StringIO(), Clock(monkeypatch)
    monkeypatch.setattr(progress, "notes", Console(file=log, width=80, markup=False, highlight=False))
    with progress.progress_on_stderr(), progress_of("Decoding scans [/final]", 60_000, "files") as advance:
        for _ in range(7):
            clock.seconds += 10
            advance(1000)
    assert log.getvalue().splitlines() == [
        "Decoding scans [/final]  3,000 of 60,000 files  100/s  10 min left",
        "Decoding scans [/final]  6,000 of 60,000 files  100/s  9 min left",
    ]


def test_a_log_gets_a_line_of_a_search_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    log, clock = io.StringIO(), Clock(monkeypatch)
    monkeypatch.setattr(progress, "console", Console(file=log, width=80))
    search = SimpleNamespace(tried=[object()], trials=11, config=SimpleNamespace(searcher="evolution"))
    with progress.search_progress(cast("Search", search)) as show:
        for iteration in range(1, 5):
            clock.seconds += 15
            show(SearchReport(2, 11, Report(Progress(iteration), 512.3, 1.25, None), 10, None, None))
    assert log.getvalue().splitlines() == [
        "trial 2 of 11, step 2/10  512 tasks/s  loss 1.250  25 min left",
        "trial 2 of 11, step 4/10  512 tasks/s  loss 1.250  24 min left",
    ]


class Clock:
    """A clock that the pace of work goes by, and that a test turns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        monkeypatch.setattr(pace, "monotonic", lambda: self.seconds)


def test_output_that_takes_no_more_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a disk without room
        monkeypatch.setattr(sys, "stdout", full)
        for _ in range(3):
            console.print("x" * 100_000)
        console.file.flush()
        monkeypatch.undo()
        with suppress(OSError):
            full.close()


def test_output_of_any_encoding_takes_any_text(monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, "ascii"))
    console.print("accuracy 97% ± 1%  (images:日本)")
    assert content.getvalue() == rb"accuracy 97% \xb1 1%  (images:\u65e5\u672c)" + b"\n"


def test_train_and_evaluate_say_what_they_leave_out_of_the_data(tmp_path: Path) -> None:
    for name in "abcdef":
        (tmp_path / "zoo" / name).mkdir(parents=True)
        for index in range(2):
            Image.linear_gradient("L").rotate(30 * ord(name)).save(tmp_path / "zoo" / name / f"{index}.png")
    (tmp_path / "zoo" / "empty").mkdir()
    data = ("--data", f"images:{tmp_path / 'zoo'}?size=8&test=0.34&val=0.34")
    sizes = ("--ways", 2, "--train-ways", 2, "--iterations", 1, "--meta-batch", 1, "--validation-episodes", 2)
    rest = ("--test-episodes", 2, "--queries", 1, "--device", "cpu", "--backbone-set", "width=8")
    said = "1 empty folder left out"
    assert said in innerloop("train", "protonet", *data, *sizes, *rest, "--out", tmp_path / "run").output
    figures = ("--episodes", 2, "--queries", 1, "--device", "cpu")
    assert said in innerloop("evaluate", tmp_path / "run", *data, *figures).output


def test_a_model_is_trained_and_evaluated_on_a_data_set_of_the_literature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for split, names in {"train": "ab", "val": "cd", "test": "ef"}.items():
        for number, name in enumerate(names * 2):
            path = tmp_path / "CIFAR-FS" / split / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9, 9), (2 * ord(name), 40 * number, 0)).save(path)
    data = ("--data", f"cifar-fs:{tmp_path / 'CIFAR-FS'}?size=8", "--ways", 2, "--queries", 1, "--device", "cpu")
    trained = innerloop(
        *("train", "protonet", *data, "--iterations", 1, "--meta-batch", 1, "--validation-episodes", 2, "--no-report"),
        *("--test-episodes", 2, "--calibration-episodes", 0, "--backbone-set", "width=4", "--out", tmp_path / "run"),
    )
    assert trained.status == 0, trained
    assert "this copy has 2, 2 and 2: figures on it don't compare" in " ".join(trained.output.split())
    assert load_bundle(tmp_path / "run" / "bundle").manifest.name == "cifar-fs-protonet"
    tested = innerloop("evaluate", tmp_path / "run", *data, "--episodes", 2)
    assert tested.status == 0, tested


def test_sources_lists_every_source_and_one_with_its_options() -> None:
    listed = json.loads(innerloop("sources", "--json").output)
    assert [each["name"] for each in listed] == list(sources)
    assert all(each["summary"] and each["example"] for each in listed)
    shown = innerloop("sources").output
    assert all(name in shown for name in sources)
    options = json.loads(innerloop("sources", "images", "--json").output)["options"]
    assert {each["name"]: each["default"] for each in options} == {
        "val": "0.15",
        "test": "0.2",
        "seed": "0",
        "order": "shuffled",
        "min_examples": "0",
        "skip_broken": "false",
        "size": "64",
        "color": "auto",
        "nested": "false",
        "domains": "none",
    }
    assert "skip_broken" in innerloop("sources", "images").output
    assert "It has no options" in innerloop("sources", "sinusoid").output
    assert "there are: audio, cifar-fs, cub" in innerloop("sources", "imagenet").error


def test_brackets_and_dollars_in_the_names_of_data_end_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.progress_on_stderr(), progress_of("Decoding scans [/final]", 2, "files") as advance:
        advance(2)
    plot_learning_curve([], "images:price $_$", "accuracy", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").exists()
