"""How many calls the server takes in: what gRPC refuses by itself costs a tenth of what we spend on a refusal.

An event loop takes in one call of each RPC in a turn, and the others wait inside gRPC. Without these two rules, a model
that answers in a few milliseconds answers nobody in time once more comes than the loop can read: all calls wait until
just before their deadlines, and the loop spends on refusing them what the device needs for computing.
"""

WAITING_CALLS = 200
"""Calls of one RPC that wait inside gRPC at most. So many can come at one moment; the loop reads them in half a second
even when it is busy. gRPC ends others with the status CANCELLED, which our client takes for an overload."""

REST_SECONDS = 0.002
"""Longest rest of the event loop after a refusal: a tenth of the time that a batch of short requests takes."""

REST_SHARE = 0.01
"""Part of the work that waits for the device which a rest may take, so that no lane runs out of work meanwhile."""


def waiting_options() -> list[tuple[str, int]]:
    """Options of a gRPC server that bound how many calls wait inside gRPC, separately for each RPC."""
    return [
        # Between the two, calls would be refused at random.
        ("grpc.server.max_pending_requests", WAITING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", WAITING_CALLS),
    ]


def rest_seconds(wait: float) -> float:
    """Seconds for which the event loop rests after it has refused a request because the device is busy.

    Args:
        wait: seconds until the device would have come to the request.

    A loop that rests takes in fewer calls, and leaves its processor to what computes. With 0.6 s of work ahead it rests
    for 2 ms; a request that leaves no time for a wait of 50 ms causes a rest of half a millisecond.

    >>> rest_seconds(0.6), rest_seconds(0.05), rest_seconds(0.0)
    (0.002, 0.0005, 0.0)
    """
    return min(REST_SECONDS, REST_SHARE * wait)
