"""Inputs of a request to arrays, checked against what a model takes."""

from collections.abc import Mapping

import numpy as np

from innerloop.v1 import tensor_pb2
from innerloop_server.domain.models import InputKind, ModelDescription
from innerloop_server.domain.tasks import Array
from innerloop_server.transport.codec.audio import decode_audio_files, decode_waveforms, most_recordings
from innerloop_server.transport.codec.detached import NOTHING, Detached
from innerloop_server.transport.codec.images import decode_images
from innerloop_server.transport.codec.tensors import decode_tensor
from innerloop_server.transport.codec.texts import decode_texts
from innerloop_server.transport.codec.turns import turn
from innerloop_server.transport.codec.violations import Violations

LARGE = 1 << 20
"""Inputs of at least this many bytes are decoded in a thread, so that the event loop is not held up."""

FORMS: Mapping[InputKind, tuple[str, ...]] = {
    "tensor": ("tensor", "images"),
    "text": ("texts",),
    "audio": ("audio_files", "waveforms"),
}
"""The forms in which the inputs of each kind of models may be sent."""

IMAGE_CHANNELS = (1, 3)
IMAGE_RANGE = (0, 255)


def is_heavy(inputs: tensor_pb2.Inputs, field: str, detached: Detached) -> bool:
    """Whether decoding the inputs at a path takes long enough to hold up other requests."""
    form = inputs.WhichOneof("value")
    if form == "texts":
        return inputs.ByteSize() >= LARGE
    # `ByteSize` would serialise the message, which takes longer than the copy that reading the bytes makes.
    return (
        form in ("images", "audio_files", "waveforms")
        or len(detached.get(f"{field}.tensor") or inputs.tensor.data) >= LARGE
    )


def decode_inputs(
    inputs: tensor_pb2.Inputs,
    field: str,
    model: ModelDescription,
    most: int,
    violations: Violations,
    detached: Detached = NOTHING,
) -> Array:
    """Raw inputs [N, *input], uint8 or float32, or packed texts [N, L], N from 1 to `most_examples`.

    Floating-point inputs are in the same units as the data that the model was trained on: 0 to 255 for images.

    Returns:
        an empty array when something is wrong; `violations` says what.
    """
    form = inputs.WhichOneof("value")
    most = most_examples(most, model)
    if form is None:
        violations.add(field, "is missing")
        array = None
    elif form not in FORMS[model.input_kind]:
        violations.add(f"{field}.{form}", f"this model takes {_taken(form, model)}")
        array = None
    elif form == "tensor":
        path = f"{field}.tensor"
        with turn(len(detached.get(path, b""))):
            array = _decode_tensor(inputs.tensor, path, model, most, violations, detached)
    else:
        array = _decode_each(inputs, form, field, model, most, violations)
    return array if array is not None else np.zeros((0, *model.input_shape), np.uint8)


def most_examples(most: int, model: ModelDescription) -> int:
    """Most examples of one request to a model, where `most` are accepted of any."""
    return most_recordings(most, model.input_shape[0]) if model.input_kind == "audio" else most


def _taken(form: str, model: ModelDescription) -> str:
    """Words for the form that a model takes instead of the one that was sent."""
    if model.input_kind == "text":
        return "texts"
    if model.input_kind == "audio":
        return "audio: files, or samples with their rate"
    return f"no {'texts' if form == 'texts' else 'audio'}, its inputs are {list(model.input_shape)}"


def _decode_tensor(
    tensor: tensor_pb2.Tensor,
    field: str,
    model: ModelDescription,
    most: int,
    violations: Violations,
    detached: Detached,
) -> Array | None:
    array = decode_tensor(tensor, field, model.input_shape, violations, detached)
    usable = array is not None and _check_count(len(array), field, most, violations)
    return array if usable and _check_range(array, field, model, violations) else None


def _decode_each(
    inputs: tensor_pb2.Inputs,
    form: str,
    field: str,
    model: ModelDescription,
    most: int,
    violations: Violations,
) -> Array | None:
    """Inputs of which each is a message's field of its own: files, texts or waveforms."""
    name = "files" if form in ("images", "audio_files") else "values"
    given, field = getattr(getattr(inputs, form), name), f"{field}.{form}.{name}"
    if form == "images" and not _check_takes_images(field, model, violations):
        return None
    if not _check_count(len(given), field, most, violations):
        return None
    if form == "images":
        return decode_images(given, field, model.input_shape, violations)
    if form == "texts":
        with turn(inputs.ByteSize()):
            return decode_texts(given, field, violations)
    decode = decode_audio_files if form == "audio_files" else decode_waveforms
    return decode(given, field, model.sample_rate, model.input_shape[0], violations)


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
