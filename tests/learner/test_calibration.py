"""How sure answers are, computed from logits: what each map promises, and what bundles keep of it."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from bundles import PROTOTYPES, a_calibration, write_bundle, write_calibrated

from innerloop_learner.bundle import load_bundle
from innerloop_learner.calibration import (
    COVERAGES,
    Calibration,
    TaskCalibration,
    features,
    intervals,
    known,
    label_sets,
    nonconformity,
    probabilities,
    probabilities_and_known,
)
from innerloop_learner.manifest import BundleError, digest_of, read_manifest

RANDOM = np.random.default_rng(0)
SIZES = [(queries, ways, scale) for queries, ways in ((7, 2), (5, 5), (3, 40)) for scale in (0.1, 3.0, 300.0)]


def figures(**changes):
    return replace(a_calibration().tasks[0], **changes)


def logits_of(queries, ways, scale):
    return (scale * RANDOM.normal(size=(queries, ways))).astype(np.float32)


@pytest.mark.parametrize(("queries", "ways", "scale"), SIZES)
@pytest.mark.parametrize("temperature", [0.01, 1.0, 50.0])
def test_temperature_keeps_the_order_of_classes(queries, ways, scale, temperature):
    logits = logits_of(queries, ways, scale)
    found = probabilities(logits, figures(temperature=temperature))
    np.testing.assert_allclose(found.sum(1), 1)
    assert (np.diff(np.take_along_axis(found, logits.argsort(1), 1), axis=1) >= 0).all()
    assert (np.take_along_axis(found, logits.argmax(1)[:, None], 1)[:, 0] == found.max(1)).all()


@pytest.mark.parametrize("feature", range(3))
def test_known_rises_with_what_speaks_for_it(feature):
    weights = tuple(float(feature == each) for each in range(3))
    logits = logits_of(200, 5, 2.0)
    found = known(logits, figures(weights=weights, bias=0.3))
    order = features(logits, 2.0)[:, feature].argsort()
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(found[order]) >= 0).all()


@pytest.mark.parametrize(("queries", "ways", "scale"), SIZES)
def test_features_are_what_they_are_called(queries, ways, scale):
    logits = logits_of(queries, ways, scale).astype(np.float64)
    largest, odds, mean = features(2 * logits, 2.0).T
    np.testing.assert_allclose(largest, logits.max(1))
    np.testing.assert_allclose(mean, logits.mean(1))
    ordered = np.sort(logits, 1)
    others = np.logaddexp.reduce(ordered[:, :-1], axis=1)
    np.testing.assert_allclose(odds, np.minimum(ordered[:, -1] - others, -np.log(1e-15)), rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize(("queries", "ways", "scale"), SIZES)
def test_nonconformity_is_the_log_odds_of_a_label_against_all_others(queries, ways, scale):
    logits = logits_of(queries, ways, scale).astype(np.float64)
    found = nonconformity(logits, 2.0)
    for way in range(ways):
        others = np.logaddexp.reduce(np.delete(logits, way, 1) / 2, axis=1)
        expected = np.maximum(others - logits[:, way] / 2, np.log(1e-300) - 1e-9)
        np.testing.assert_allclose(found[:, way], expected, rtol=1e-6, atol=1e-6)


def test_more_coverage_means_larger_sets_and_wider_intervals():
    logits, calibration = logits_of(50, 6, 2.0), a_calibration().tasks[0]
    sets = [label_sets(logits, calibration, coverage) for coverage in (0.5, 0.77, 0.905, 0.99)]
    assert all((smaller <= larger).all() for smaller, larger in itertools.pairwise(sets))
    assert sets[0].sum() < sets[-1].sum()
    values = RANDOM.normal(size=(4, 2))
    narrow, wide = (intervals(values, calibration, coverage) for coverage in (0.8, 0.9))
    assert narrow.shape == (4, 2, 2)
    assert (wide[..., 0] < narrow[..., 0]).all()
    assert (wide[..., 1] > narrow[..., 1]).all()
    np.testing.assert_allclose(wide.mean(-1), values)


@pytest.mark.parametrize("coverage", [0.49, 0.995, 1.0, float("nan")])
def test_a_coverage_without_a_quantile_is_refused(coverage):
    with pytest.raises(ValueError, match="lies between"):
        label_sets(logits_of(2, 3, 1.0), figures(), coverage)


def test_an_answer_depends_on_its_own_query_only():
    logits, calibration = logits_of(20, 5, 3.0), a_calibration().tasks[0]
    for map_ in (
        lambda some: probabilities(some, calibration),
        lambda some: known(some, calibration),
        lambda some: label_sets(some, calibration, 0.9),
    ):
        np.testing.assert_array_equal(map_(logits)[3], map_(logits[3:4])[0])


def test_a_bundle_keeps_its_calibration(tmp_path):
    write_calibrated(tmp_path / "sure", PROTOTYPES)
    assert load_bundle(tmp_path / "sure").manifest.calibration == a_calibration()


def test_a_bundle_of_before_calibrations_is_not_calibrated(tmp_path):
    write_bundle(tmp_path / "old", PROTOTYPES)
    assert "calibration" not in json.loads((tmp_path / "old" / "manifest.json").read_text())
    assert load_bundle(tmp_path / "old").manifest.calibration is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 0.0),
        ("temperature", "warm"),
        ("quantiles", [1.0] * 3),
        ("quantiles", list(range(len(COVERAGES), 0, -1))),
        ("thresholds", [0.5]),
        ("weights", [1.0, float("inf"), 1.0]),
        ("shots", 0),
        ("variance", -1.0),
        ("variance", float("nan")),
    ],
)
def test_a_damaged_calibration_is_refused(tmp_path, field, value):
    write_calibrated(tmp_path / "sure", PROTOTYPES)
    file = tmp_path / "sure" / "manifest.json"
    data = json.loads(file.read_text())
    data["calibration"]["tasks"][0][field] = value
    data["digest"] = digest_of(data)
    file.write_text(json.dumps(data))
    with pytest.raises(BundleError, match="misstates a field"):
        read_manifest(tmp_path / "sure")


def test_figures_of_other_sizes_lie_between_those_of_the_sizes_around():
    def of(ways, shots, level):
        quantiles = tuple(level + each for each in a_calibration().tasks[0].quantiles)
        chances = tuple((0.05 + 0.2 * each) / (level + 1) for each in range(5))
        return TaskCalibration(ways, shots, 1.0 + level, (level, 1.0, 2.0), level, chances, quantiles)

    corners = {(2, 1): 0.0, (2, 4): 1.0, (8, 1): 2.0, (8, 4): 4.0}
    calibration = Calibration([of(*size, level) for size, level in corners.items()], "", 100)
    expected = {**corners, (4, 1): 1.0, (2, 2.0): 0.5, (4, 2.0): 1.75, (1000, 9.0): 4.0, (8, 0.5): 2.0}
    for size, level in expected.items():
        found = calibration.at(*size)
        assert found.bias == found.weights[0] == pytest.approx(level)
        assert found.quantile(0.5) == pytest.approx(level + a_calibration().tasks[0].quantiles[0])
        assert list(found.thresholds) == sorted(found.thresholds)
    assert calibration.at(8, 4) is calibration.at(8, 4) == of(8, 4, 4.0)


def test_figures_between_one_that_knows_and_one_that_does_not_know_nothing():
    knows = a_calibration().tasks[0]
    not_knows = replace(knows, ways=12, weights=(), thresholds=())
    calibration = Calibration([knows, not_knows], "", 100)
    assert calibration.at(3, 1).knows
    assert not calibration.at(6, 1).knows


def test_both_maps_at_once_say_what_each_says():
    logits, calibration = logits_of(20, 5, 3.0), a_calibration().tasks[0]
    honest, sure = probabilities_and_known(logits, calibration)
    np.testing.assert_array_equal(honest, probabilities(logits, calibration))
    np.testing.assert_array_equal(sure, known(logits, calibration))
    assert probabilities_and_known(logits, figures(weights=(), thresholds=()))[1] is None
