"""Reports: one page that shows what is there, whatever its classes are called."""

import base64
import io
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import PROTOTYPES, REGRESSION, write_bundle
from PIL import Image
from runs import CPU
from shell import innerloop, mistake

from innerloop_learner.bundle import load_bundle
from innerloop_learner.manifest import Metric
from innerloop_learner.spec import InputSpec, LearnerSpec
from innerloop_trainer.bundle_evaluation import BundleFigure
from innerloop_trainer.data import ClassExamples, EpisodeShape, TaskSampler, load_source
from innerloop_trainer.data.class_digests import ClassDigest
from innerloop_trainer.data.example_set import ExampleSet
from innerloop_trainer.evaluation import evaluate
from innerloop_trainer.report import QUICK, Subject, make_report, subject_of
from innerloop_trainer.report.failures import failures
from innerloop_trainer.report.grids import Clock, curve_by_shots, curve_by_ways
from innerloop_trainer.report.reliability import bins
from innerloop_trainer.report.trajectory import trajectory

NAMES = ["<script>alert('a')</script>", "$x_1$", '"><img src=x onerror=alert(1)>', "{{ 7*7 }}", "é & ü", "&lt;"]
CLASSES, EACH = len(NAMES), 9
FEATURES = InputSpec((6,))


class Page(HTMLParser):
    """Elements of a page, and the texts of its cells and headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def drawings() -> ClassExamples:
    """Images of hostile classes, of which each has one colour of its own: 40 times its number."""
    pixels = np.repeat(np.arange(CLASSES), EACH) * 40
    images = np.broadcast_to(pixels[:, None, None, None], (CLASSES * EACH, 1, 8, 8)).astype(np.uint8)
    digests = tuple(ClassDigest((f"{number}",), f"{number}") for number in range(CLASSES))
    data = ExampleSet(tuple(NAMES), np.full(CLASSES, EACH), images, digests)
    return ClassExamples("drawings, test split", data, PROTOTYPES.input, CPU)


def subject(folder: Path, *, encoded: bool = False) -> Subject:
    """An untrained model on drawings; behind an encoder that sees nothing, it guesses."""
    originals = drawings()
    spec = replace(PROTOTYPES, input=FEATURES) if encoded else PROTOTYPES
    sampler = originals
    if encoded:
        noise = np.random.default_rng(0).normal(size=(CLASSES * EACH, 6)).astype(np.float32)
        sampler = originals.with_inputs(lambda data: replace(data, examples=noise), FEATURES)
    return _subject(folder, spec, sampler, originals, EpisodeShape(5, 1, 3))


def _subject(
    folder: Path, spec: LearnerSpec, sampler: TaskSampler, originals: ClassExamples | None, shape: EpisodeShape
) -> Subject:
    write_bundle(folder / "bundle", spec)
    source = replace(load_source("digits" if shape.ways else "sinusoid"), description="<script>alert('data')</script>")
    return Subject(
        bundle=load_bundle(folder / "bundle", CPU),
        source=source,
        sampler=sampler,
        originals=originals,
        texts=False,
        rate=0,
        shape=shape,
        steps=load_bundle(folder / "bundle", CPU).learner.default_steps,
        seed=0,
        headline=Metric("accuracy", 0.5, 0.01, "inductive, <b>5-way</b>"),
        left_out=0,
    )


@pytest.mark.parametrize("encoded", [False, True], ids=["images", "behind an encoder"])
def test_hostile_names_are_shown_and_never_become_elements(encoded: bool, tmp_path: Path) -> None:
    text = make_report(subject(tmp_path, encoded=encoded), QUICK)
    page = Page(text)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "iframe", "link", "object"}
    assert all(name in page.text for name in NAMES)  # in the legend of the map, if nowhere else
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("data:image/", "#"))
    assert all(attributes.get("alt") for tag, attributes in page.elements if tag == "img")
    assert "url(http" not in text
    assert len(text) < 3_000_000


def test_pictures_are_those_of_the_classes_that_they_are_named_after_also_behind_an_encoder(tmp_path: Path) -> None:
    tasks, pairs = failures(subject(tmp_path, encoded=True), QUICK)
    assert tasks
    assert pairs
    shown = [(each.name, example) for task in tasks for each in task.classes for example in each.support]
    shown += [(answer.true, answer.query) for task in tasks for answer in task.wrong]
    shown += [(pair.names[0], pair.query) for pair in pairs]
    shown += [named for pair in pairs for named in zip(pair.names, pair.examples, strict=True)]
    for name, example in shown:
        picture = Image.open(io.BytesIO(base64.b64decode(example.picture.partition(",")[2])))
        assert picture.getpixel((0, 0)) == 40 * NAMES.index(name)
    assert all(answer.true != answer.given for task in tasks for answer in task.wrong)
    assert all(0 < pair.wrong <= pair.asked for pair in pairs)


def test_curves_hold_what_an_evaluation_gives_and_leave_out_what_time_does_not_suffice_for(tmp_path: Path) -> None:
    about = subject(tmp_path, encoded=True)
    curve = curve_by_ways(about, QUICK, Clock(QUICK))
    assert [point.size for point in curve.points] == [2, 5]  # of six classes
    bundle, five = about.bundle, EpisodeShape(5, 1, 3)
    found = evaluate(bundle.learner, bundle.params, about.sampler, five, split="test", episodes=QUICK.episodes)
    assert curve.points[1].mean == found.mean
    late = replace(QUICK, seconds=-1.0)
    assert curve_by_ways(about, late, Clock(late)) == replace(curve, points=[], left_out=[2, 5])


def test_a_regression_has_curves_in_the_place_of_pictures_and_losses_by_step(tmp_path: Path) -> None:
    about = _subject(tmp_path, REGRESSION, load_source("sinusoid").test, None, EpisodeShape(0, 5, 4))
    page = Page(make_report(about, QUICK))
    assert "Losses while adapting" in page.text
    assert page.text.count("Mean squared error") >= QUICK.tasks
    assert "img" not in {tag for tag, _ in page.elements}
    steps = trajectory(about, QUICK, Clock(QUICK))
    assert [each.steps for each in steps] == [0, 1, 2, 3]
    found = evaluate(
        about.bundle.learner, about.bundle.params, about.sampler, about.shape, split="test", episodes=25, steps=1
    )
    assert steps[1].mean == pytest.approx(found.mean)


def test_a_report_on_no_inner_steps_takes_none(tmp_path: Path) -> None:
    about = _subject(tmp_path, REGRESSION, load_source("sinusoid").test, None, EpisodeShape(0, 5, 4))
    bundle, metric = about.bundle, about.headline
    figure = BundleFigure(metric, about.source, (), 0, about.sampler, about.shape)
    stepless = subject_of(bundle, "sinusoid", figure, seed=0)
    alike = {"split": "test", "episodes": QUICK.episodes, "steps": 0}
    found = evaluate(bundle.learner, bundle.params, about.sampler, about.shape, **alike)
    curve = curve_by_shots(stepless, QUICK, Clock(QUICK))
    assert [each.mean for each in curve.points if each.size == 5] == [found.mean]


def test_bins_count_every_query_once() -> None:
    logits = torch.randn(7, 11, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.randint(5, (7, 11), generator=torch.Generator().manual_seed(1)).numpy()
    sure = (3 * logits).softmax(-1).double().numpy()
    found = bins(sure, targets)
    assert sum(each.queries for each in found) == 77
    right = sum(each.right * each.queries for each in found) / 77
    assert right == pytest.approx((sure.argmax(-1) == targets).mean())
    assert sum(each.sure * each.queries for each in found) / 77 == pytest.approx(sure.max(-1).mean())


def test_a_run_leaves_a_report_unless_told_not_to_and_a_report_never_replaces_another_page(tmp_path: Path) -> None:
    small = ("--data", "digits", "--ways", 2, "--iterations", 1, "--validation-episodes", 2, "--test-episodes", 2)
    small = (*small, "--backbone", "mlp", "--calibration-episodes", 0, "--queries", 2, "--device", "cpu")
    assert innerloop("train", "protonet", *small, "--out", tmp_path / "a").status == 0
    assert innerloop("train", "protonet", *small, "--out", tmp_path / "b", "--no-report").status == 0
    report = tmp_path / "a" / "report.html"
    assert "digits-protonet" in Page(report.read_text()).text
    assert not (tmp_path / "b" / "report.html").exists()
    evaluating = ("evaluate", tmp_path / "b", "--data", "digits", "--episodes", 2, "--queries", 2, "--report")
    own = tmp_path / "own.html"
    own.write_text("<p>mine</p>")
    assert "no report" in mistake(*evaluating, own)
    assert own.read_text() == "<p>mine</p>"
    assert "there is no folder" in mistake(*evaluating, tmp_path / "none" / "report.html")
    before = report.read_text()
    assert innerloop(*evaluating, report).status == 0
    assert report.read_text() != before
