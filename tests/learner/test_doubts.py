import numpy as np
import pytest

from innerloop_learner.diagnosis import ALIKE_FROM, diagnose, left_out_parts


@pytest.mark.parametrize("seed", range(20))
def test_every_example_with_company_is_left_out_once_and_no_class_disappears(seed: int) -> None:
    random = np.random.default_rng(seed)
    y, most = random.integers(0, random.integers(2, 9), random.integers(2, 60)), int(random.integers(2, 30))
    y = np.unique(y, return_inverse=True)[1].astype(np.int64)
    parts = left_out_parts(y, most)
    counts = np.bincount(y)
    assert sorted(place for part in parts for place in part) == np.flatnonzero(counts[y] > 1).tolist()
    assert len(parts) <= most
    for part in parts:
        assert (np.bincount(np.delete(y, part), minlength=len(counts)) > 0).all()
        assert len(part) <= -(-len(y) // most)


def test_at_most_as_many_examples_as_parts_are_left_out_one_by_one() -> None:
    assert [len(part) for part in left_out_parts(np.repeat(np.arange(5), 20))] == [1] * 100


def test_single_examples_say_nothing() -> None:
    found = diagnose(np.array([1, 0]), np.full((2, 2), np.nan))
    assert np.isnan(found.doubts).all()
    assert found.likely_classes == (1, 0)
    assert found.expected_accuracy is None
    assert found.alike == ()
    assert (found.judged, found.doubtful) == (0, 0)


def test_doubts_are_what_the_others_say_against_the_label() -> None:
    y = np.array([0, 0, 1, 1, 2])
    probabilities = np.array([[0.9, 0.1, 0.0], [0.02, 0.88, 0.1], [0.1, 0.8, 0.1], [0.3, 0.6, 0.1], [np.nan] * 3])
    found = diagnose(y, probabilities)
    # Nine of ten labels are assumed to be right, and a wrong label to be either of the two other classes as often.
    bayes = [0.1 * (1 - p) / 2 / (0.1 * (1 - p) / 2 + 0.9 * p) for p in (0.9, 0.02, 0.8, 0.6)]
    assert found.doubts[:4] == pytest.approx(bayes)
    assert np.isnan(found.doubts[4])
    assert found.likely_classes == (0, 1, 1, 1, 2)
    assert (found.judged, found.doubtful) == (4, 1)


@pytest.mark.parametrize(("right", "asked", "low", "high"), [(9, 10, 0.596, 0.982), (10, 10, 0.722, 1.0)])
def test_the_interval_of_the_accuracy_is_that_of_wilson(right: int, asked: int, low: float, high: float) -> None:
    """The figures are those of Brown, Cai and DasGupta, Interval Estimation for a Binomial Proportion, 2001."""
    y = np.array([0] * (asked // 2) + [1] * (asked // 2))
    probabilities = np.eye(2)[np.where(np.arange(asked) < right, y, 1 - y)]
    expected = diagnose(y, probabilities).expected_accuracy
    assert expected is not None
    assert (expected.value, expected.examples) == (right / asked, asked)
    assert (expected.low, expected.high) == pytest.approx((low, high), abs=1e-3)


def test_one_class_under_two_names_is_named_and_others_are_not() -> None:
    y = np.array([0, 0, 1, 1, 2, 2])
    probabilities = np.where(np.isin(y, [0, 1])[:, None], [0.48, 0.5, 0.02], [0.02, 0.02, 0.96])
    (pair,) = diagnose(y, probabilities).alike
    assert (pair.first, pair.second) == (0, 1)
    assert pair.confusion == pytest.approx(0.5, abs=0.02)
    assert diagnose(y, np.eye(3)[y]).alike == ()
    assert ALIKE_FROM < 0.5


def test_a_class_of_one_example_is_alike_to_none() -> None:
    y = np.array([0, 0, 1])
    assert diagnose(y, np.array([[0.5, 0.5], [0.5, 0.5], [np.nan, np.nan]])).alike == ()
