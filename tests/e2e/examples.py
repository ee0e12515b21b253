"""Requests that the tiny bundles understand."""

import numpy as np
from bundles import IMAGE
from wire import inputs, regression_support, support

from innerloop.v1 import adaptation_pb2 as pb


def pictures(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *IMAGE), dtype=np.uint8)


def picture_support(ways=3, shots=1, seed=0):
    labels = [f"class {way}" for way in range(ways)] * shots
    return support(pictures(ways * shots, seed), labels)


def curve_support(shots=5, seed=0):
    x = np.random.default_rng(seed).normal(size=(shots, 1)).astype(np.float32)
    return regression_support(x, np.sin(x))


def adapt_request(model="prototypes", ways=3, shots=1, seed=0, **fields):
    return pb.AdaptRequest(model=model, support=picture_support(ways, shots, seed), **fields)


def predict_request(adaptation_id, count=4, seed=1, **fields):
    return pb.PredictRequest(adaptation_id=adaptation_id, query=inputs(pictures(count, seed)), **fields)


def lasting_request(steps=2000, seed=0, **fields):
    """An Adapt request that keeps the device busy for `steps` milliseconds or so."""
    return adapt_request("gradients", options=pb.AdaptOptions(steps=steps), seed=seed, **fields)
