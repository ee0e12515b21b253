"""Limits of each caller on requests and examples a second."""

import doctest
from contextlib import suppress

import pytest

from innerloop_server.domain.callers import Caller, OwnerLimits
from innerloop_server.domain.errors import OverloadedError
from innerloop_server.serving import rate_limits
from innerloop_server.serving.rate_limits import MOST_IDLE, RateLimit, RateLimits


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_the_example_is_right():
    assert doctest.testmod(rate_limits).attempted
    assert doctest.testmod(rate_limits).failed == 0


@pytest.mark.parametrize(
    ("limits", "most"), [(OwnerLimits(requests_per_second=20), 20), (OwnerLimits(examples_per_second=50), 10)]
)
def test_a_caller_that_does_as_it_is_told_gets_its_rate_and_a_seconds_worth_more(clock, limits, most):
    rates, caller, answered = RateLimits(limits, clock), Caller("me"), 0
    while clock.now < 10:
        try:
            rates.spend(caller, 5)
            answered += 1
        except OverloadedError as refused:
            clock.now += refused.retry_after + 1e-9
    assert most * 10 <= answered <= most * 11 + 1


def test_callers_have_limits_of_their_own(clock):
    rates = RateLimits(OwnerLimits(requests_per_second=1), clock)
    for name in ("me", "another"):
        rates.spend(Caller(name), 1)
        rates.spend(Caller(name), 1)
        with pytest.raises(OverloadedError, match="requests a second"):
            rates.spend(Caller(name), 1)


@pytest.mark.parametrize(
    ("own", "most"),
    [
        (OwnerLimits(), 3),
        (OwnerLimits(requests_per_second=5), 3),
        (OwnerLimits(requests_per_second=50, examples_per_second=5), 6),
        (OwnerLimits(requests_per_second=1), 2),
    ],
)
def test_a_callers_own_limits_stand_in_place_of_those_of_all(clock, own, most):
    rates, answered = RateLimits(OwnerLimits(requests_per_second=2, examples_per_second=2), clock), 0
    with suppress(OverloadedError):
        while answered < 100:
            rates.spend(Caller("me", limits=own), 1)
            answered += 1
    assert answered == most


def test_a_request_larger_than_a_burst_is_answered_and_later_ones_wait_for_it(clock):
    rates, caller = RateLimits(OwnerLimits(examples_per_second=10), clock), Caller("me")
    rates.spend(caller, 50)
    with pytest.raises(OverloadedError) as refused:
        rates.spend(caller, 1)
    assert refused.value.retry_after == pytest.approx(4)


def test_callers_that_have_long_been_gone_are_forgotten(clock):
    limit = RateLimit(clock)
    for number in range(10 * MOST_IDLE):
        limit.spend(str(number), 1, rate=1.0)
        clock.now += 0.01
    assert len(limit._spent_until) <= 2 * MOST_IDLE
