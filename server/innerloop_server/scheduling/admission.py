"""Who may wait: two rules, each with the measurement that chose its constant.

What can't be answered in time is refused at once, with the seconds after which it could be. So the device computes for
those who still wait for the answer, and whoever is refused can ask elsewhere or come back. Estimates are made of
measured times only: where nothing has been measured, nobody is refused.
"""

from dataclasses import dataclass

IN_TIME = 0.75
"""Part of the time that a request has left in which it must be answered by the estimate. The rest is for what the
estimate does not know: others whose turn comes first, batches that take longer than usual, and the answer's way back.
"""

SHORTEST_RETRY, LONGEST_RETRY = 0.02, 30.0
"""Least and most seconds after which a client is told to try a refused request again."""


@dataclass(frozen=True)
class QueueLimits:
    """How much may wait.

    Attributes:
        requests: most waiting requests of one model.
        size_bytes: most input bytes of one model's waiting requests.
        seconds: longest estimated wait of a request that has no deadline.
        requests_of_account: most waiting requests of one model and of an account whose jobs say no other number; None
            for no limit.
    """

    requests: int
    size_bytes: int
    seconds: float
    requests_of_account: int | None = None


def too_late_by(wait: float, own: float, left: float) -> float:
    """Rule 1, in time: a request is admitted if it will be answered within three quarters of the time that it has left.

    Args:
        wait: seconds until its turn, estimated.
        own: seconds that it takes itself.
        left: seconds until its deadline.

    Returns:
        seconds by which it would be too late; zero or less if it is admitted.

    A request with a deadline in 1 s that takes 50 ms is admitted if it waits for 0.7 s, and 0.2 s too late if it waits
    for 0.9 s.

    >>> round(too_late_by(wait=0.7, own=0.05, left=1.0), 3), round(too_late_by(wait=0.9, own=0.05, left=1.0), 3)
    (0.0, 0.2)

    A request that need not wait is computed in any case, however long it may take: what was measured may be outdated.

    >>> too_late_by(wait=0.0, own=5.0, left=1.0)
    0.0
    """
    return wait + own - IN_TIME * left if wait else 0.0


def gives_way(most: int, own: int, newcomer: int) -> bool:
    """Rule 2, room for everyone: in a full queue, the newest request of whoever lets most wait gives way to others.

    Args:
        most: requests, or bytes, that the one waits with who has most of them.
        own: what the newcomer's account waits with already.
        newcomer: what the new request adds.

    Of 512 places one account has 500 and another 12: the second one gets places until both have 256.

    >>> gives_way(most=500, own=12, newcomer=1), gives_way(most=256, own=256, newcomer=1)
    (True, False)
    """
    return most > own + newcomer


def retry_after(wait: float, late: float = 0.0) -> float:
    """Seconds after which a refused request should be tried again: when half of what waits now has been computed.

    There is room earlier, but for one request, and as many are refused as come; these spread over the time that is
    told to them. With 0.8 s of work ahead, of which 0.1 s are too much, a client comes back after 0.4 s. One whose own
    work takes longer than its deadline allows comes back when nothing is ahead of it.

    >>> retry_after(wait=0.8, late=0.1), retry_after(wait=0.8, late=0.6), retry_after(wait=0.8, late=60.0)
    (0.4, 0.6, 0.8)
    """
    return min(max(wait / 2, min(wait, late), SHORTEST_RETRY), LONGEST_RETRY)
