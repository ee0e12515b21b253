"""Whatever callers pass, nothing but errors of the SDK comes out: not even a StopIteration, which ends loops."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scripted_server import running

from innerloop import Client, InnerloopError

FAILURES = [StopIteration, AttributeError, TypeError, ValueError, KeyError, RecursionError, AssertionError]
METHODS = [
    "__str__",
    "__repr__",
    "__hash__",
    "__eq__",
    "__array__",
    "__iter__",
    "__len__",
    "__float__",
    "__index__",
    "__fspath__",
    "__getattr__",
    "tolist",
    "item",
    "read",
    "seekable",
    "save",
    "convert",
]


def hostile(methods, failure, shape):
    """An object of which some methods fail, and which may pretend to be an array without dimensions."""

    def fail(*_args, **_settings):
        raise failure

    return type("Hostile", (), dict.fromkeys(methods, fail) | ({"shape": ()} if shape else {}))()


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(), max_size=3),  # halves of characters among them
    st.binary(max_size=3),
    st.builds(hostile, st.lists(st.sampled_from(METHODS), min_size=1), st.sampled_from(FAILURES), st.booleans()),
    st.builds(object),
    arrays(st.sampled_from(["u1", "f4", "f8", "O", "M8[ns]", "?"]), array_shapes(min_dims=0, max_dims=3, max_side=3)),
)
GIVEN = st.one_of(VALUES, st.lists(VALUES, max_size=3), st.tuples(VALUES), st.dictionaries(st.text(), VALUES))


@pytest.fixture(scope="module")
def client():
    with running() as server, Client(server.address, retries=0) as client:
        yield client


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(inputs=GIVEN, labels=GIVEN, targets=GIVEN, steps=VALUES, time_to_live=VALUES, query=GIVEN, timeout=VALUES)
def test_nothing_but_errors_of_the_sdk_comes_out(client, inputs, labels, targets, steps, time_to_live, query, timeout):
    good = np.zeros((2, 4), np.uint8)
    calls = [
        lambda: client.adapt("vectors", inputs, ["a", "b"]),
        lambda: client.adapt("vectors", good, labels),
        lambda: client.adapt("waves", good, targets=targets),
        lambda: client.adapt("vectors", good, ["a", "b"], steps=steps, time_to_live=time_to_live, timeout=5),
        lambda: client.adapt_predict("vectors", good, ["a", "b"], query=query),
        lambda: client.adapt("vectors", good, ["a", "b"]).predict(query),
        lambda: list(client.adapt("vectors", good, ["a", "b"]).predict_stream([good, query])),
        lambda: list(client.adapt("vectors", good, ["a", "b"]).predict_stream(query)),
        lambda: client.adapt(inputs, good, ["a", "b"]),
        lambda: client.get_adaptation(labels),
        lambda: client.model(labels),
        lambda: client.models(timeout=timeout),
    ]
    for call in calls:
        with suppress(InnerloopError):
            call()
