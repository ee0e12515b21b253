"""Many clients at once."""

from itertools import cycle, islice

import numpy as np
import pytest
from examples import curve_support, picture_support, pictures
from wire import array, inputs

from innerloop.v1 import adaptation_pb2 as pb

pytestmark = pytest.mark.with_and_without_front_ends

CALLS = 200


def mixed_requests():
    """AdaptPredict requests of three models, many ways, shots, query counts, steps and element types."""
    random = np.random.default_rng(0)
    for seed, model in enumerate(cycle(["prototypes", "gradients", "regression"])):
        queries = int(random.integers(1, 12))
        request = pb.AdaptPredictRequest(model=model, return_logits=True)
        if model == "regression":
            request.support.CopyFrom(curve_support(int(random.integers(1, 12)), seed))
            request.query.CopyFrom(inputs(random.normal(size=(queries, 1)).astype(np.float32)))
        else:
            ways = int(random.integers(2, 6 if model == "gradients" else 30))
            request.support.CopyFrom(picture_support(ways, int(random.integers(1, 6)), seed))
            dtype = random.choice(["uint8", "float32"])
            request.query.CopyFrom(inputs(pictures(queries, seed).astype(dtype)))
            if model == "gradients":
                request.options.steps = int(random.integers(0, 4))
        yield request


def answers(response):
    predictions = response.predictions
    return list(predictions.classes), array(
        predictions.values if predictions.HasField("values") else predictions.logits
    )


def test_200_mixed_calls_at_once_are_answered_as_each_alone(client, metrics):
    requests = list(islice(mixed_requests(), CALLS))
    alone = [answers(client.adaptations.AdaptPredict(request)) for request in requests]
    batches_before = metrics("innerloop_batch_size_count", model="prototypes", operation="adapt")
    calls = [client.adaptations.AdaptPredict.future(request) for request in requests]
    together = [answers(call.result()) for call in calls]
    for (classes, values), (expected_classes, expected) in zip(together, alone, strict=True):
        assert classes == expected_classes
        np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-4)
    batches = metrics("innerloop_batch_size_count", model="prototypes", operation="adapt") - batches_before
    assert batches < CALLS / 3 * 0.8, "concurrent calls should have shared batches"
