"""The SDK suggests which unlabelled inputs to label."""

import numpy as np
import pytest

from innerloop import InvalidArgumentError
from innerloop.suggestions import worth_labels


def test_the_least_decided_come_first_and_what_says_the_same_comes_late():
    answers = np.array([[0.9, 0.05, 0.05], [0.5, 0.5, 0.0], [0.51, 0.49, 0.0], [0.0, 0.45, 0.55]])
    assert worth_labels(answers, 1) == [1]
    assert worth_labels(answers, 2) == [1, 3]
    assert sorted(worth_labels(answers, 4)) == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", range(5))
def test_each_is_the_best_that_is_left(seed):
    random = np.random.default_rng(seed)
    answers = random.dirichlet(np.ones(4), 30)
    chosen = worth_labels(answers, 10)
    assert len(set(chosen)) == 10
    for count in range(1, 10):
        scores = []
        for row in answers:
            second, first = np.sort(row)[-2:]
            distance = min(np.linalg.norm(row - answers[each]) for each in chosen[:count])
            scores.append((1 - (first - second)) * distance)
        assert chosen[count] == np.argmax(scores)


def test_identical_inputs_are_all_suggested_in_the_end():
    assert sorted(worth_labels(np.full((3, 2), 0.5), 3)) == [0, 1, 2]


@pytest.mark.parametrize("n", [0, 4])
def test_more_than_there_are_can_not_be_suggested(n):
    with pytest.raises(InvalidArgumentError, match=f"can't suggest {n} of 3 inputs"):
        worth_labels(np.full((3, 2), 0.5), n)


async def test_both_clients_suggest_by_what_they_are_answered(client):
    adaptation = await client.adapt("grey", np.zeros((2, 28, 28)), ["a", "b"])
    inputs = np.random.default_rng(0).integers(0, 256, (5, 28, 28)).astype(np.uint8)
    expected = worth_labels((await adaptation.predict(inputs)).probabilities, 2)
    assert await adaptation.suggest(inputs, 2) == expected
