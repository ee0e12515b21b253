"""How many calls wait until the server reads them: what gRPC refuses by itself costs a tenth of a refusal of ours.

An event loop takes in one call of each RPC in a turn, and the others wait inside gRPC. Without a limit, a model that
answers in a few milliseconds answers nobody in time once more comes than the loop can read: all calls wait until just
before their deadlines, and the loop spends on refusing them what the device needs for computing.
"""

WAITING_CALLS = 200
"""Calls of one RPC that wait inside gRPC at most. So many can come at one moment; the loop reads them in half a second
even when it is busy. gRPC ends others with the status CANCELLED, which our client takes for an overload."""


def waiting_options() -> list[tuple[str, int]]:
    """Options of a gRPC server that bound how many calls wait inside gRPC, separately for each RPC."""
    return [
        # Between the two, calls would be refused at random.
        ("grpc.server.max_pending_requests", WAITING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", WAITING_CALLS),
    ]
