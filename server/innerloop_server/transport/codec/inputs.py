"""Inputs of a request to arrays, checked against what a model takes."""

import numpy as np

from innerloop.v1 import tensor_pb2
from innerloop_server.domain.models import ModelDescription
from innerloop_server.domain.tasks import Array
from innerloop_server.transport.codec.detached import NOTHING, Detached
from innerloop_server.transport.codec.images import decode_images
from innerloop_server.transport.codec.tensors import decode_tensor
from innerloop_server.transport.codec.texts import decode_texts
from innerloop_server.transport.codec.violations import Violations

LARGE = 1 << 20
"""Inputs of at least this many bytes are decoded in a thread, so that the event loop is not held up."""

IMAGE_CHANNELS = (1, 3)
IMAGE_RANGE = (0, 255)


def is_heavy(inputs: tensor_pb2.Inputs, field: str, detached: Detached) -> bool:
    """Whether decoding the inputs at a path takes long enough to hold up other requests."""
    form = inputs.WhichOneof("value")
    if form == "texts":
        return inputs.ByteSize() >= LARGE
    # `ByteSize` would serialise the message, which takes longer than the copy that reading the bytes makes.
    return form == "images" or len(detached.get(f"{field}.tensor") or inputs.tensor.data) >= LARGE


def decode_inputs(
    inputs: tensor_pb2.Inputs,
    field: str,
    model: ModelDescription,
    most: int,
    violations: Violations,
    detached: Detached = NOTHING,
) -> Array:
    """Raw inputs [N, *input], uint8 or float32, or packed texts [N, L], N from 1 to `most`.

    Floating-point inputs are in the same units as the data that the model was trained on: 0 to 255 for images.

    Returns:
        an empty array when something is wrong; `violations` says what.
    """
    form = inputs.WhichOneof("value")
    if form is not None and (form == "texts") != model.texts:
        takes = "texts" if model.texts else f"no texts, its inputs are {list(model.input_shape)}"
        violations.add(f"{field}.{form}", f"this model takes {takes}")
        array, usable = None, False
    elif form == "tensor":
        field = f"{field}.tensor"
        array = decode_tensor(inputs.tensor, field, model.input_shape, violations, detached)
        usable = array is not None and _check_count(len(array), field, most, violations)
        usable = usable and _check_range(array, field, model, violations)
    elif form == "images":
        field = f"{field}.images.files"
        files = inputs.images.files
        usable = _check_takes_images(field, model, violations) and _check_count(len(files), field, most, violations)
        array = decode_images(files, field, model.input_shape, violations) if usable else None
    elif form == "texts":
        field = f"{field}.texts.values"
        usable = _check_count(len(inputs.texts.values), field, most, violations)
        array = decode_texts(inputs.texts.values, field, violations) if usable else None
    else:
        violations.add(field, "is missing")
        array, usable = None, False
    return array if usable and array is not None else np.zeros((0, *model.input_shape), np.uint8)


def _check_count(count: int, field: str, most: int, violations: Violations) -> bool:
    if count == 0:
        violations.add(field, "is empty")
    elif count > most:
        violations.add(field, f"has {count} examples, at most {most} are accepted")
    return 0 < count <= most


def _check_range(array: Array | None, field: str, model: ModelDescription, violations: Violations) -> bool:
    if array is None or array.dtype == np.uint8 or model.input_dtype != "uint8":
        return True
    low, high = IMAGE_RANGE
    largest = array.max()
    if array.min() < low or largest > high:
        violations.add(f"{field}.data", f"has values outside {low} to {high}, the range of this model's inputs")
        return False
    if low < largest <= 1:
        # Many libraries scale images to 0 to 1: here such images would look black, and the answers would be nonsense.
        violations.add(
            f"{field}.data", f"has no value above 1: this model's inputs go from {low} to {high}, multiply by {high}"
        )
        return False
    return True


def _check_takes_images(field: str, model: ModelDescription, violations: Violations) -> bool:
    shape = model.input_shape
    if model.input_dtype == "uint8" and len(shape) == 3 and shape[0] in IMAGE_CHANNELS:
        return True
    violations.add(field, f"this model takes no images, its inputs are {list(shape)}")
    return False
