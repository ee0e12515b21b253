"""Calibrating models: fits against plain references, coverage on synthetic data, and the commands."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from shell import innerloop, mistake

from innerloop_learner import LearnerSpec, build_learner
from innerloop_learner.bundle import load_bundle, save_bundle
from innerloop_learner.calibration import COVERAGES, FALSE_ALARMS, known, label_sets, probabilities
from innerloop_learner.losses import UNUSED_LOGIT
from innerloop_learner.manifest import Manifest, Provenance, TaskLimits
from innerloop_trainer.calibration import CalibrationError, ClassAnswers, calibrate, honesty, usual_sizes
from innerloop_trainer.calibration.fit import fit_classes, fit_temperature, fit_values, task_quantiles
from innerloop_trainer.calibration.measure import area_under_curve, calibration_error
from innerloop_trainer.calibration.open_episodes import UNKNOWN, distractors_for, sample_open
from innerloop_trainer.data import EpisodeShape, load_source


def synthetic(episodes, seed, *, ways=4, queries=8, sharpness=3.0):
    """Answers of a model that is `sharpness` times too sure, to tasks that differ in how hard they are."""
    random = np.random.default_rng(seed)
    hard = random.uniform(0.5, 2.0, (episodes, 1, 1))
    honest = random.normal(size=(episodes, queries, ways)) * 2 / hard
    chances = np.exp(honest) / np.exp(honest).sum(-1, keepdims=True)
    targets = (chances.cumsum(-1) < random.uniform(size=(episodes, queries, 1))).sum(-1)
    unknown = random.normal(size=(episodes, queries, ways)) - 1.5
    return ClassAnswers(sharpness * honest, targets, sharpness * unknown)


def test_the_temperature_of_a_model_that_is_too_sure_is_found():
    answers = synthetic(400, 0, sharpness=3.0)
    temperature = fit_temperature(answers.logits, answers.targets)
    assert temperature == pytest.approx(3.0, rel=0.1)
    sure = probabilities(answers.logits, replace(fit_classes(answers, 1), temperature=temperature)).max(-1)
    assert sure.mean() == pytest.approx((answers.logits.argmax(-1) == answers.targets).mean(), abs=1e-3)


def test_a_model_that_is_always_right_has_a_temperature():
    logits = np.random.default_rng(0).normal(size=(100, 6, 3))
    assert 0.001 < fit_temperature(logits, logits.argmax(-1)) < 0.5


def test_a_model_that_is_never_in_doubt_learns_to_be():
    """The single nearest neighbour leaves all other classes without a vote."""
    random = np.random.default_rng(0)
    targets = random.integers(0, 3, (200, 5))
    named = np.where(random.uniform(size=(200, 5)) < 0.7, targets, random.integers(0, 3, (200, 5)))
    logits = np.where(np.arange(3) == named[..., None], -random.uniform(size=(200, 5, 1)), UNUSED_LOGIT)
    fitted = fit_classes(ClassAnswers(logits, targets, logits), shots=1)
    assert calibration_error(probabilities(logits, fitted), targets) < 0.02


def test_a_calibration_holds_for_other_tasks():
    fitted = fit_classes(synthetic(1000, 1), shots=1)
    found = honesty(synthetic(1000, 2), fitted)
    assert found.error_before > 0.1
    assert found.error_after < 0.02
    assert found.false_alarms == pytest.approx(0.05, abs=0.01)
    assert found.separation > found.baseline
    for coverage, measured in found.coverage.items():
        assert measured == pytest.approx(coverage, abs=0.01)
    assert list(found.size.values()) == sorted(found.size.values())


def test_coverage_is_kept_on_average_where_calibration_has_few_tasks():
    """Over many calibrations of 100 tasks each, another task's scores lie below the quantile as often as promised."""
    random = np.random.default_rng(3)

    def scores(tasks):
        return random.normal(size=(tasks, 1)) * 2 + random.normal(size=(tasks, 5))

    level = COVERAGES.index(0.9)
    covered = [(scores(20) <= task_quantiles(scores(100))[level]).mean() for _ in range(400)]
    assert 0.895 < np.mean(covered) < 0.92


def test_what_a_set_leaves_out_is_no_likelier_than_what_it_holds():
    answers = synthetic(200, 4)
    fitted = fit_classes(answers, shots=1)
    sets, sure = label_sets(answers.logits, fitted, 0.9), probabilities(answers.logits, fitted)
    least_inside = np.where(sets, sure, np.inf).min(-1)
    most_outside = np.where(sets, -np.inf, sure).max(-1)
    assert (most_outside <= least_inside + 1e-12).all()


def test_known_is_half_where_both_kinds_are_as_frequent():
    """Among queries to which `known` gives about p, a share of about p is known, if both kinds are as frequent."""
    fitted = fit_classes(synthetic(2000, 5), shots=1)
    other = synthetic(2000, 6)
    own, others = known(other.logits, fitted).ravel(), known(other.unknown, fitted).ravel()
    for low, high in ((0.2, 0.4), (0.4, 0.6), (0.6, 0.8)):
        of_own, of_others = ((low <= each) & (each < high) for each in (own, others))
        share = of_own.mean() / (of_own.mean() + of_others.mean())
        assert low - 0.08 < share < high + 0.08


def test_without_distractors_there_is_no_known():
    answers = synthetic(100, 7)
    fitted = fit_classes(ClassAnswers(answers.logits, answers.targets, answers.unknown[:, :0]), shots=1)
    assert not fitted.knows
    assert honesty(answers, fitted).separation is None


def test_intervals_of_a_regression_hold_the_truth():
    random = np.random.default_rng(8)

    def errors(tasks):
        return np.abs(random.normal(size=(tasks, 10)) * random.uniform(0.5, 2, (tasks, 1)))

    fitted = fit_values(errors(1000), shots=5)
    assert fitted.variance == pytest.approx((2**3 - 0.5**3) / 3 / 1.5, rel=0.1), "the mean of uniform squares"
    assert (errors(1000) <= fitted.quantile(0.95)).mean() == pytest.approx(0.95, abs=0.01)


def test_areas_and_errors_are_those_of_plain_references():
    random = np.random.default_rng(9)
    own, others = random.integers(0, 5, 30).astype(float), random.integers(0, 5, 20).astype(float)
    pairs = [(mine > other) + 0.5 * (mine == other) for mine in own for other in others]
    assert area_under_curve(own, others) == pytest.approx(np.mean(pairs))
    sure = random.dirichlet(np.ones(3), 500)
    targets = random.integers(0, 3, 500)
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = [row for row in range(500) if low <= sure[row].max() < low + 1 / 15]
        if inside:
            right = np.mean([sure[row].argmax() == targets[row] for row in inside])
            expected += len(inside) / 500 * abs(right - np.mean([sure[row].max() for row in inside]))
    assert calibration_error(sure, targets) == pytest.approx(expected)


def test_distractors_have_no_support_and_no_label():
    source = load_source("glyphs").validation
    shape = EpisodeShape(ways=4, shots=2, queries=3)
    assert distractors_for(source, 4) == 4
    drawn = sample_open(source, shape, 4, 3, torch.Generator().manual_seed(0))
    assert drawn.support.x.shape[:2] == (3, 8)
    assert (drawn.support.ways == 4).all()
    assert all(row.bincount().tolist() == [2, 2, 2, 2] for row in drawn.support.y)
    assert (drawn.targets == UNKNOWN).sum(1).tolist() == [12, 12, 12]
    whole = source.sample(EpisodeShape(8, 2, 3), 3, torch.Generator().manual_seed(0))
    for task in range(3):
        np.testing.assert_array_equal(drawn.support.x[task], whole.support.x[task][whole.support.y[task] < 4])
        np.testing.assert_array_equal(drawn.query.x[task], whole.query.x[task])


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """A bundle of random prototypes for glyphs."""
    source = load_source("glyphs")
    spec = LearnerSpec("protonet", source.input, max_ways=20, backbone="mlp", backbone_settings={"widths": [16]})
    learner = build_learner(spec)
    path = tmp_path_factory.mktemp("bundles") / "untrained"
    manifest = Manifest("untrained", spec, TaskLimits(5, 1, 0, 20, 0), Provenance("none", 0, 0, "", {}))
    save_bundle(path, manifest, learner.init(torch.Generator().manual_seed(0)))
    return path


def test_sizes_are_those_of_training_and_usual_ones_that_the_model_takes(untrained):
    bundle = load_bundle(untrained)
    assert usual_sizes(bundle.manifest.limits, bundle.learner) == [(2, 1), (2, 5), (5, 1), (5, 5), (20, 1), (20, 5)]
    assert usual_sizes(TaskLimits(7, 3, 0, 10, 0), bundle.learner)[:4] == [(2, 1), (2, 3), (2, 5), (5, 1)]


def test_too_few_episodes_or_classes_are_refused(untrained):
    bundle, source = load_bundle(untrained), load_source("glyphs")
    with pytest.raises(CalibrationError, match="99 episodes are too few"):
        calibrate(bundle.learner, bundle.params, source.test, [(2, 1)], data="", episodes=99, seed=0)
    few = source.test.without(source.test.names[9:])
    with pytest.raises(CalibrationError, match="9 classes are too few"):
        calibrate(bundle.learner, bundle.params, few, [(2, 1)], data="", episodes=100, seed=0)
    with pytest.raises(CalibrationError, match="gives no tasks"):
        calibrate(bundle.learner, bundle.params, source.test, [(2, 500)], data="", episodes=100, seed=0)


def test_a_model_that_diverges_is_not_calibrated(untrained):
    bundle, source = load_bundle(untrained), load_source("glyphs")
    broken = {name: torch.full_like(value, float("nan")) for name, value in bundle.params.items()}
    with pytest.raises(CalibrationError, match="diverges on some tasks"):
        calibrate(bundle.learner, broken, source.test, [(2, 1)], data="", episodes=100, seed=0)


def test_the_command_writes_another_bundle_and_evaluate_says_how_well_it_holds(untrained, tmp_path):
    before = (untrained / "manifest.json").read_bytes()
    out = tmp_path / "sure"
    status, said, _ = innerloop(
        "calibrate", untrained, "--data", "glyphs", "--out", out, "--size", "5x1", "--size", "2x1", "--episodes", 100
    )
    assert status == 0
    assert "5-way 1-shot, 2-way 1-shot" in said
    assert (untrained / "manifest.json").read_bytes() == before
    manifest = load_bundle(out).manifest
    assert [(each.ways, each.shots) for each in manifest.calibration.tasks] == [(5, 1), (2, 1)]
    assert len(manifest.calibration.tasks[0].thresholds) == len(FALSE_ALARMS)
    assert manifest.provenance.classes["validation"], "evaluations leave out the classes that it was calibrated with"
    _, said, _ = innerloop("evaluate", out, "--data", "glyphs", "--episodes", 50)
    assert "calibration error" in said
    assert "coverage" in said
    assert (
        "calibration error"
        not in innerloop("evaluate", untrained, "--data", "glyphs", "--split", "test", "--episodes", 5).output
    )


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--size", "5"), "WAYSxSHOTS"),
        (("--size", "1x1"), "WAYSxSHOTS"),
        (("--size", "21x1"), "at most 20"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(untrained, tmp_path, arguments, problem):
    said = mistake("calibrate", untrained, "--data", "glyphs", "--out", tmp_path / "sure", *arguments)
    assert problem in said


def test_a_bundle_is_never_altered_in_place(untrained):
    assert "name another folder" in mistake("calibrate", untrained, "--data", "glyphs", "--out", untrained)


SMALL = ("--iterations", 2, "--validation-episodes", 2, "--test-episodes", 2, "--no-report")
TRAIN = ("train", "protonet", *SMALL, "--queries", 2)


def test_a_run_ends_with_a_calibration(tmp_path):
    small = ("--backbone", "mlp", "--max-ways", 5, "--train-ways", 5, "--calibration-episodes", 100)
    status, said, _ = innerloop(*TRAIN, *small, "--data", "glyphs", "--out", tmp_path / "run")
    assert status == 0
    assert "calibrated for 2-way 1-shot, 2-way 5-shot, 5-way 1-shot, 5-way 5-shot" in " ".join(said.split())
    calibration = load_bundle(tmp_path / "run" / "bundle").manifest.calibration
    assert (calibration.episodes, calibration.data) == (100, "validation split of glyphs")
    assert all(each.knows for each in calibration.tasks)


def test_a_run_whose_data_has_too_few_classes_is_not_calibrated_and_says_so(tmp_path):
    status, said, _ = innerloop(*TRAIN, "--backbone", "mlp", "--ways", 2, "--data", "digits", "--out", tmp_path / "run")
    assert status == 0
    assert "not calibrated: 2 classes are too few" in " ".join(said.split())
    assert load_bundle(tmp_path / "run" / "bundle").manifest.calibration is None


def test_a_regression_is_calibrated_with_intervals(tmp_path):
    status, _, _ = innerloop("train", "anil", *SMALL, "--data", "sinusoid", "--out", tmp_path / "run")
    assert status == 0
    calibration = load_bundle(tmp_path / "run" / "bundle").manifest.calibration
    assert calibration.episodes == 100, "a run this short takes no more"
    assert [(each.ways, each.shots, each.knows) for each in calibration.tasks] == [(0, 1, False)]
    assert all(each.variance > 0 for each in calibration.tasks)
    _, said, _ = innerloop("evaluate", tmp_path / "run", "--data", "sinusoid", "--episodes", 100)
    assert "coverage" in said
    assert "wide" in said
