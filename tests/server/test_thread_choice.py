"""How many threads a lone computation takes."""

from collections import Counter

from innerloop_server.engine.pytorch.thread_choice import TRIALS, TURNS, ThreadChoice


def run(choice: ThreadChoice, seconds: dict[int, float], turns: int) -> list[int]:
    """So many computations that take so long by threads; returns what was chosen."""
    chosen = []
    for _ in range(turns):
        chosen.append(choice.next())
        choice.took(chosen[-1], seconds[chosen[-1]])
    return chosen


def test_everything_is_tried_and_the_fastest_taken_from_then_on():
    chosen = run(ThreadChoice((1, 2, 4)), {1: 3.0, 2: 1.0, 4: 2.0}, TURNS)
    assert chosen[: 3 * TRIALS] == [1] * TRIALS + [2] * TRIALS + [4] * TRIALS
    assert set(chosen[3 * TRIALS :]) == {2}


def test_it_follows_a_machine_that_changes():
    choice = ThreadChoice((1, 2))
    assert run(choice, {1: 2.0, 2: 1.0}, TURNS)[-1] == 2
    assert run(choice, {1: 2.0, 2: 3.0}, 2 * TURNS)[-1] == 1
    assert run(choice, {1: 2.0, 2: 1.0}, 2 * TURNS)[-1] == 2


def test_a_few_bad_moments_change_nothing():
    choice = ThreadChoice((1, 2))
    run(choice, {1: 2.0, 2: 1.0}, TURNS)
    for _ in range(4):
        choice.took(2, 100.0)
    assert Counter(run(choice, {1: 2.0, 2: 1.0}, TURNS))[2] == TURNS - TRIALS


def test_the_first_of_each_trial_does_not_count():
    choice = ThreadChoice((1, 2))
    for turn in range(2 * TRIALS):
        threads = choice.next()
        choice.took(threads, 100.0 if threads == 2 and turn % TRIALS == 0 else 3.0 - threads)
    assert choice.next() == 2


def test_before_anything_was_measured_it_is_the_first_choice():
    choice = ThreadChoice((4, 1))
    assert [choice.next() for _ in range(2 * TRIALS + 1)][-1] == 4
