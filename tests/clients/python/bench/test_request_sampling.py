"""What is left to chance follows the distributions it is said to follow, and a seed."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from innerloop_command.bench.request_sampling import arrivals, choices, popularities
from innerloop_command.bench.settings import BenchSettings, ClosedLoop, OpenLoop
from innerloop_command.bench.workers import shares

MANY = 40_000


def generator(seed=0):
    return np.random.default_rng(seed)


def test_arrivals_are_a_poisson_process_of_the_rate():
    gaps = np.diff([0.0, *islice(arrivals(50, generator()), MANY)])
    assert gaps.min() > 0
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.02)
    assert gaps.std() == pytest.approx(1 / 50, rel=0.03)
    # Exponential gaps have no memory: after any wait, the next arrival is as far away as ever.
    assert (gaps[gaps > 0.03] - 0.03).mean() == pytest.approx(1 / 50, rel=0.05)
    assert np.corrcoef(gaps[:-1], gaps[1:])[0, 1] == pytest.approx(0, abs=0.02)


def test_arrivals_and_choices_follow_their_seed():
    def drawn(seed):
        mix = {"Adapt": 1, "Predict": 1}
        return (
            list(islice(arrivals(5, generator(seed)), 100)),
            list(islice(choices(mix, popularities("zipf", 9, 1.0), generator(seed)), 100)),
        )

    assert drawn(1) == drawn(1)
    assert drawn(1)[0] != drawn(2)[0]
    assert drawn(1)[1] != drawn(2)[1]


def test_rpcs_come_in_the_proportions_of_the_mix():
    mix = {"Adapt": 1, "Predict": 8, "AdaptPredict": 0}
    counts = Counter(choice.rpc for choice in islice(choices(mix, popularities("uniform", 3, 0), generator()), MANY))
    assert set(counts) == {"Adapt", "Predict"}
    assert counts["Predict"] / counts["Adapt"] == pytest.approx(8, rel=0.05)


@pytest.mark.parametrize(("kind", "exponent"), [("uniform", 0.99), ("zipf", 0.99), ("zipf", 1.5)])
def test_adaptations_are_chosen_by_their_popularity(kind, exponent):
    popularity = popularities(kind, 50, exponent)
    drawn = Counter(choice.slot for choice in islice(choices({"Predict": 1}, popularity, generator()), MANY))
    assert set(drawn) <= set(range(50))
    shares_of_each = np.array([drawn[slot] / MANY for slot in range(50)])
    np.testing.assert_allclose(shares_of_each, popularity, atol=5 * np.sqrt(popularity.max() / MANY))
    ratio = popularity[0] / popularity[9]
    assert ratio == pytest.approx(1 if kind == "uniform" else 10**exponent)


def test_processes_share_a_load_and_no_random_numbers():
    settings = BenchSettings("model", processes=3, max_under_way=10)
    clients = shares(ClosedLoop(8), settings, 0)
    assert [part.load.clients for part in clients] == [3, 3, 2]
    assert len(shares(ClosedLoop(2), settings, 0)) == 2
    rates = shares(OpenLoop(90), settings, 1)
    assert [part.load.rate for part in rates] == [30, 30, 30]
    assert sum(part.max_under_way for part in rates) >= 10
    assert len({part.seeds for part in [*clients, *rates]}) == 6
