"""What the SDK makes of a diagnosis, and how the shell shows it."""

import pytest

from innerloop import Diagnosis, InvalidArgumentError
from innerloop.v1 import adaptation_pb2 as pb
from innerloop_command.display import print_diagnosis

NAN = float("nan")


def diagnosis(classes=("cat", 7, "hen")):
    message = pb.Diagnosis(
        doubts=[0.25, 0.75, NAN, 0.5],
        likely_classes=[0, 1, 2, 0],
        expected_accuracy=pb.ExpectedAccuracy(value=0.5, low=0.25, high=0.75, examples=3),
        alike=[pb.AlikeClasses(first=0, second=1, confusion=0.375)],
    )
    return Diagnosis.from_message(message, classes, range(4))


def test_labels_are_the_callers_own_and_single_examples_have_no_doubt():
    found = diagnosis()
    assert found.doubts == (0.25, 0.75, None, 0.5)
    assert found.likely_labels == ("cat", 7, "hen", "cat")
    assert found.expected_accuracy == (0.5, 0.25, 0.75, 3)
    assert found.alike == (("cat", 7, 0.375),)


def test_doubtful_examples_come_with_the_most_doubtful_first():
    assert diagnosis().doubtful() == [1, 3]
    assert diagnosis().doubtful(0.7) == [1]


def test_the_shell_shows_what_is_doubtful_beside_the_id(capsys):
    classes = ("cat", "dog", "hen")
    print_diagnosis(diagnosis(classes), ["1.png", "2.png", "3.png", "4.png"], ["cat", "cat", "hen", "dog"])
    captured = capsys.readouterr()
    assert not captured.out
    assert "2.png" in captured.err
    assert "1.png" not in captured.err
    assert "75%" in captured.err
    assert "accuracy to expect: 50% (25% to 75%), by leaving out each of 3 examples" in captured.err
    assert "cat and dog can't be told apart" in captured.err


def test_the_shell_says_that_one_shot_says_nothing(capsys):
    print_diagnosis(Diagnosis((None, None), ("cat", "dog"), None, ()), ["1.png", "2.png"], ["cat", "dog"])
    assert "give two or more" in capsys.readouterr().err


async def test_anything_but_true_or_false_is_refused(client):
    with pytest.raises(InvalidArgumentError, match="diagnose must be True or False"):
        await client.adapt("vectors", [[0.0] * 4, [1.0] * 4], ["a", "b"], diagnose="yes")
