"""What the SDK makes of answers that say how sure they are, and how the shell shows them."""

import numpy as np
import pytest

from innerloop import MissingAnswerError, Predictions
from innerloop.tensors import encode_tensor
from innerloop.v1 import adaptation_pb2 as pb
from innerloop_command.display import answer, print_answers


def message(probabilities, known=(), thresholds=(), sets=None):
    made = pb.Predictions(classes=["cat", "dog"], probabilities=encode_tensor(np.array(probabilities, np.float32)))
    if len(known):
        made.known.CopyFrom(encode_tensor(np.array(known, np.float32)))
        made.false_alarms.extend([0.01, 0.05])
        made.known_thresholds.extend(thresholds)
    if sets is not None:
        made.label_sets.CopyFrom(encode_tensor(np.array(sets, np.uint8)))
    return made


def predictions(*messages, labels=()):
    return Predictions.joined([Predictions(each, dict(labels), pb.Timings()) for each in messages])


def test_each_part_of_many_queries_has_thresholds_of_its_own():
    answers = predictions(
        message([[0.9, 0.1], [0.8, 0.2]], known=[0.3, 0.5], thresholds=[0.2, 0.4]),
        message([[0.3, 0.7]], known=[0.5], thresholds=[0.5, 0.6]),
    )
    assert [each.label_or(None) for each in answers] == [None, "cat", None]
    assert [each.label_or("?", false_alarms=0.01) for each in answers] == ["cat", "cat", "dog"]
    assert answers.passes_for_known(0.05).tolist() == [False, True, False]
    np.testing.assert_allclose(answers.known, [0.3, 0.5, 0.5])


def test_sets_hold_the_callers_objects_the_most_probable_first():
    answers = predictions(
        message([[0.4, 0.6], [0.9, 0.1], [0.5, 0.5]], sets=[[1, 1], [0, 0], [0, 1]]), labels={"dog": 7}.items()
    )
    assert answers.label_sets == [(7, "cat"), (), (7,)]
    assert answers[0].label_set == (7, "cat")


def test_answers_of_before_say_nothing():
    (first,) = predictions(message([[0.4, 0.6]]))
    assert not hasattr(first, "known")
    assert not hasattr(first, "label_set")
    with pytest.raises(MissingAnswerError, match="not calibrated"):
        first.label_or(None)
    assert set(answer("file", "x", first)) == {"file", "label", "probability", "probabilities"}


def test_the_shell_shows_unknown_queries_and_sets(capsys):
    answers = predictions(
        message([[0.4, 0.6], [0.9, 0.1]], known=[0.1, 0.9], thresholds=[0.2, 0.4], sets=[[0, 0], [1, 1]])
    )
    rows = [answer("file", f"{row}.png", each) for row, each in enumerate(answers)]
    assert [row["unknown"] for row in rows] == [True, False]
    print_answers(rows)
    shown = capsys.readouterr().out
    assert "unknown (dog?)" in shown
    assert "cat, dog" in shown
    assert "none" in shown
    assert "10.0%" in shown


def test_the_shell_shows_intervals(capsys):
    made = pb.Predictions(
        values=encode_tensor(np.array([[1.5]], np.float32)),
        intervals=encode_tensor(np.array([[[1.0, 2.0]]], np.float32)),
        variances=encode_tensor(np.array([[0.25]], np.float32)),
    )
    (first,) = predictions(made)
    row = answer("text", "x", first)
    assert row["intervals"] == [[1.0, 2.0]]
    assert row["variances"] == [0.25]
    assert first.interval == (1.0, 2.0)
    print_answers([row])
    assert "1 to 2" in capsys.readouterr().out
