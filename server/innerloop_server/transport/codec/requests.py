"""Request messages to domain objects, checked line by line; everything that is wrong is reported at once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1 import tensor_pb2
from innerloop_learner.calibration import COVERAGES
from innerloop_server.domain.adaptations import KeepOptions
from innerloop_server.domain.callers import Priority
from innerloop_server.domain.errors import FieldViolation, InvalidRequestError, uncalibrated
from innerloop_server.domain.examples import check_diagnosed, number_classes, wrong_classes
from innerloop_server.domain.models import ModelDescription, ServedModel
from innerloop_server.domain.tasks import AdaptTask, Array, SupportSet
from innerloop_server.transport.codec.detached import NOTHING, Detached, Received, detaching
from innerloop_server.transport.codec.inputs import decode_inputs
from innerloop_server.transport.codec.tensors import decode_tensor
from innerloop_server.transport.codec.violations import Violations
from innerloop_server.transport.codec.wire_limits import limited

LONGEST_LABEL = 1000
LONGEST_REQUEST_ID = 128
LONGEST_LIFE = 100 * 365 * 86400.0
"""Longest life of an adaptation, in seconds: about 100 years, since a timestamp holds no much later time."""

READERS: Mapping[str, Callable[[bytes], Received[Any]]] = {
    "Adapt": detaching(pb.AdaptRequest, "support.inputs.tensor"),
    "Predict": detaching(pb.PredictRequest, "query.tensor"),
    "StreamPredict": detaching(pb.StreamPredictRequest, "query.tensor"),
    "AdaptPredict": detaching(pb.AdaptPredictRequest, "support.inputs.tensor", "query.tensor"),
    "UpdateAdaptation": detaching(pb.UpdateAdaptationRequest, "add.inputs.tensor", "support.inputs.tensor"),
}
"""How these methods' requests are read from the bytes that arrive; a tensor's path is the one that violations name."""

FIELDS_OF_SUPPORT, FIELDS_OF_QUERY, FIELDS_OF_CHANGE, OTHER_FIELDS = 4, 3, 24, 1000
"""Most fields of a request for each support example and for each query, such as a waveform's samples, its rate and
itself, and its label; for each example that an update changes, such as its label and the ten bytes of its id, twice;
and most of all other fields."""


@dataclass(frozen=True)
class RequestLimits:
    """Limits of requests that hold for all models.

    Attributes:
        support: most support examples.
        query: most queries.
        time_to_live: seconds an adaptation lives unused when the request says nothing; zero for ever.
        max_time_to_live: the longest a request may ask for; zero for no limit.
        message_bytes: the largest request.
    """

    support: int
    query: int
    time_to_live: float
    max_time_to_live: float
    message_bytes: int


def limited_readers(limits: RequestLimits) -> Mapping[str, Callable[[bytes], Received[Any]]]:
    """READERS, which refuse requests of more fields than the limits allow before protobuf takes memory for them."""
    support, query = FIELDS_OF_SUPPORT * limits.support, FIELDS_OF_QUERY * limits.query
    kinds: Mapping[str, tuple[type[Message], int]] = {
        "Adapt": (pb.AdaptRequest, support),
        "Predict": (pb.PredictRequest, query),
        "StreamPredict": (pb.StreamPredictRequest, query),
        "AdaptPredict": (pb.AdaptPredictRequest, support + query),
        "UpdateAdaptation": (pb.UpdateAdaptationRequest, support + FIELDS_OF_CHANGE * limits.support),
    }
    return {method: limited(kind, READERS[method], OTHER_FIELDS + most) for method, (kind, most) in kinds.items()}


def decode_adapt(
    request: pb.AdaptRequest | pb.AdaptPredictRequest,
    model: ServedModel,
    limits: RequestLimits,
    detached: Detached = NOTHING,
) -> AdaptTask:
    """The task that an Adapt request holds.

    Raises:
        InvalidRequestError: it makes no sense for this model.
    """
    violations = Violations()
    task = _adapt_task(request, model, limits, violations, detached)
    violations.check()
    return task


def decode_diagnose(request: pb.AdaptRequest, task: AdaptTask) -> bool:
    """Whether a request wants a diagnosis of its examples.

    Raises:
        InvalidRequestError: it has too many, or its model does not classify.
    """
    if not request.diagnose:
        return False
    check_diagnosed(task.support.size, task.classes)
    return True


def decode_adapt_predict(
    request: pb.AdaptPredictRequest, model: ServedModel, limits: RequestLimits, detached: Detached = NOTHING
) -> tuple[AdaptTask, Array]:
    """The task and the queries that an AdaptPredict request holds.

    Raises:
        InvalidRequestError: it makes no sense for this model.
    """
    violations = Violations()
    task = _adapt_task(request, model, limits, violations, detached)
    query = decode_inputs(request.query, "query", model.description, limits.query, violations, detached)
    violations.check()
    return task, query


def decode_query(
    inputs: tensor_pb2.Inputs, model: ServedModel, limits: RequestLimits, detached: Detached = NOTHING
) -> Array:
    """The queries of a Predict request.

    Raises:
        InvalidRequestError: they make no sense for this model.
    """
    violations = Violations()
    query = decode_inputs(inputs, "query", model.description, limits.query, violations, detached)
    violations.check()
    return query


def decode_coverage(
    request: pb.PredictRequest | pb.StreamPredictRequest | pb.AdaptPredictRequest, model: ServedModel
) -> float | None:
    """The share of queries whose sets or intervals shall hold the truth; None if the request wants none.

    Raises:
        InvalidRequestError: it is out of range, or the model is not calibrated.
    """
    if not request.HasField("coverage"):
        return None
    if not model.description.calibrated:
        raise uncalibrated()
    if not COVERAGES[0] <= request.coverage <= COVERAGES[-1]:
        why = f"is {request.coverage:g}, and must lie between {COVERAGES[0]} and {COVERAGES[-1]}"
        raise InvalidRequestError([FieldViolation("coverage", why)])
    return request.coverage


def decode_priority(priority: int) -> Priority:
    """The priority of a request.

    Raises:
        InvalidRequestError: there is none of that number.
    """
    try:
        return Priority(priority or Priority.NORMAL)
    except ValueError as error:
        why = f"is {priority}, and must be batch ({Priority.BATCH:d}), normal or interactive ({Priority.INTERACTIVE:d})"
        raise InvalidRequestError([FieldViolation("priority", why)]) from error


def decode_keep_options(
    request: pb.AdaptRequest | pb.AdaptPredictRequest,
    limits: RequestLimits,
    detached: Detached = NOTHING,
) -> KeepOptions:
    """How the result of an Adapt request shall be kept.

    Raises:
        InvalidRequestError: the time to live is too long or negative, or the request id is too long.
    """
    violations = Violations()
    time_to_live = limits.time_to_live
    if request.options.HasField("time_to_live"):
        time_to_live = _seconds(request.options.time_to_live)
        most = limits.max_time_to_live
        if most and not 0 < time_to_live <= most:
            violations.add("options.time_to_live", f"must be more than 0 and at most {most:g} seconds")
        elif not 0 <= time_to_live <= LONGEST_LIFE:
            violations.add(
                "options.time_to_live", "must be at least 0 seconds, which means for ever, and at most 100 years"
            )
    check_request_id(request.request_id, violations)
    violations.check()
    fingerprint = fingerprint_of(request, detached) if request.request_id else b""
    return KeepOptions(time_to_live, request.request_id, fingerprint, request.options.forget_examples)


def check_request_id(request_id: str, violations: Violations) -> None:
    """Refuse a request id that is too long."""
    if len(request_id) > LONGEST_REQUEST_ID:
        violations.add("request_id", f"is longer than {LONGEST_REQUEST_ID} characters")


def fingerprint_of(request: Message, detached: Detached) -> bytes:
    """What tells the content of a request from that of others."""
    content = blake2b(request.SerializeToString(deterministic=True), digest_size=16)
    for path, data in sorted(detached.items()):
        content.update(f"{path} {len(data)} ".encode())
        content.update(data)
    return content.digest()


def _adapt_task(
    request: pb.AdaptRequest | pb.AdaptPredictRequest,
    model: ServedModel,
    limits: RequestLimits,
    violations: Violations,
    detached: Detached,
) -> AdaptTask:
    """The task; it is meaningless if there are violations."""
    description = model.description
    steps = _steps(request.options, description, violations)
    x = decode_inputs(request.support.inputs, "support.inputs", description, limits.support, violations, detached)
    size = len(x) or None  # an empty array was reported already
    classes: tuple[str, ...] = ()
    if description.traits.task_kind == "classification":
        y, classes = _classes(request.support, size, limits.support, description, violations)
    else:
        y = decode_targets(request.support, "support", size, description, violations)
    support = SupportSet(x, y, len(classes))
    return AdaptTask(model, support, classes, steps, request.options.HasField("steps"))


def _steps(options: pb.AdaptOptions, model: ModelDescription, violations: Violations) -> int:
    if not options.HasField("steps"):
        return model.traits.default_steps
    if options.steps > model.traits.max_steps:
        most = model.traits.max_steps
        takes = f"at most {most} are possible" if most else "this model has no inner steps"
        violations.add("options.steps", f"is {options.steps}, {takes}")
    return options.steps


def _classes(
    support: pb.Support, size: int | None, most: int, model: ModelDescription, violations: Violations
) -> tuple[Array, tuple[str, ...]]:
    """Class indices [S], and the labels they stand for; both empty when there are too many."""
    labels = decode_labels(support, "support", size, most, violations)
    if labels is None:
        return np.zeros(0, np.int64), ()
    y, classes = number_classes(labels, in_order=model.traits.order_matters)
    for wrong in wrong_classes(classes, model):
        violations.add("support.labels", wrong)
    return y, classes


def decode_labels(
    given: pb.Support | pb.Relabelling, field: str, size: int | None, most: int, violations: Violations
) -> Sequence[str] | None:
    """The label of each of some examples.

    Args:
        given: holds them.
        field: its path.
        size: number of examples; None if that is not known.
        most: labels that are accepted at all.
        violations: receives what is wrong.

    Returns:
        None where they are missing, or too many to look at.
    """
    field = f"{field}.labels"
    labels: Sequence[str] = given.labels.values
    if not given.HasField("labels"):
        violations.add(field, "are missing: this model classifies")
        return None
    # A small message can hold millions of labels, and reading them would hold up all other requests.
    if len(labels) > most:
        violations.add(field, f"has {len(labels)} labels, at most {most} are accepted")
        return None
    if size is not None and len(labels) != size:
        violations.add(field, f"has {len(labels)} labels for {size} examples")
    check_labels(labels, field, violations)
    return labels


def check_labels(labels: Sequence[str], field: str, violations: Violations) -> None:
    """Refuse labels that are too long."""
    if any(len(label) > LONGEST_LABEL for label in labels):
        violations.add(field, f"has a label of more than {LONGEST_LABEL} characters")


def decode_targets(
    given: pb.Support | pb.Relabelling, field: str, size: int | None, model: ModelDescription, violations: Violations
) -> Array:
    """Regression targets [S, D]; arguments as those of `decode_labels`."""
    field = f"{field}.targets"
    missing = np.zeros((0, model.traits.target_size), np.float32)
    if not given.HasField("targets"):
        violations.add(field, "are missing: this model regresses")
        return missing
    targets = decode_tensor(given.targets, field, (model.traits.target_size,), violations)
    if targets is None:
        return missing
    if size is not None and len(targets) != size:
        violations.add(field, f"has {len(targets)} targets for {size} examples")
    return targets.astype(np.float32, copy=False)


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
