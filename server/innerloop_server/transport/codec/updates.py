"""UpdateAdaptation requests to domain objects, checked as far as that can be done without the adaptation."""

from collections.abc import Sequence

import numpy as np

from innerloop.v1 import adaptation_pb2 as pb
from innerloop_server.domain.models import ModelDescription, ServedModel
from innerloop_server.domain.tasks import Array
from innerloop_server.domain.updates import Edits, SupportUpdate, UpdateOptions, UpdateTask
from innerloop_server.transport.codec.detached import NOTHING, Detached
from innerloop_server.transport.codec.inputs import decode_inputs
from innerloop_server.transport.codec.requests import (
    RequestLimits,
    check_labels,
    check_request_id,
    decode_labels,
    decode_targets,
    fingerprint_of,
)
from innerloop_server.transport.codec.violations import Violations

Answers = tuple[tuple[str, ...], Array]
"""Labels of some examples, none for regression; and their targets [N, D], D being zero for classification."""


def decode_update(
    request: pb.UpdateAdaptationRequest, model: ServedModel, limits: RequestLimits, detached: Detached = NOTHING
) -> UpdateTask:
    """The change that an UpdateAdaptation request asks for.

    Raises:
        InvalidRequestError: it asks for nothing, contradicts itself, or makes no sense for this model.
    """
    violations = Violations()
    _check_changes(request, limits.support, violations)
    check_request_id(request.request_id, violations)
    violations.check()
    update = _update(request, model.description, limits, violations, detached)
    violations.check()
    fingerprint = fingerprint_of(request, detached) if request.request_id else b""
    options = UpdateOptions(request.request_id, fingerprint, request.expected_revision, limits.support)
    return UpdateTask(model, request.adaptation_id, update, options)


def _check_changes(request: pb.UpdateAdaptationRequest, most: int, violations: Violations) -> None:
    """Refuse a request that names too much, or something twice, or nothing."""
    changes = {
        "add": request.HasField("add"),
        "remove_examples": bool(request.remove_examples),
        "remove_classes": bool(request.remove_classes),
        "relabel": bool(request.relabel.example_ids),
        "rename_classes": bool(request.rename_classes),
    }
    wanted = [name for name, present in changes.items() if present]
    if request.HasField("support"):
        if wanted:
            violations.add("support", f"is all examples, beside which there is no place for {', '.join(wanted)}")
    elif not wanted:
        violations.add("message", "names no change")
    renamed = [each.label for each in request.rename_classes[: most + 1]]
    _check_once("remove_examples", request.remove_examples, most, violations)
    _check_once("relabel.example_ids", request.relabel.example_ids, most, violations, request.remove_examples)
    _check_once("remove_classes", request.remove_classes, most, violations)
    _check_once("rename_classes", renamed, most, violations, request.remove_classes)


def _check_once(
    field: str, named: Sequence[object], most: int, violations: Violations, removed: Sequence[object] = ()
) -> None:
    """Refuse a field that names something twice, or what is removed, or more than an adaptation can have."""
    if len(named) > most:
        violations.add(field, f"names {len(named)}, and an adaptation has at most {most} examples")
    elif len(set(named)) < len(named):
        violations.add(field, "names one twice")
    elif len(removed) <= most and not set(named).isdisjoint(removed):
        violations.add(field, "names one that is removed")


def _update(
    request: pb.UpdateAdaptationRequest,
    model: ModelDescription,
    limits: RequestLimits,
    violations: Violations,
    detached: Detached,
) -> SupportUpdate:
    """The change; it is meaningless if there are violations."""
    whole = request.HasField("support")
    given, field = (request.support, "support") if whole else (request.add, "add")
    x, (labels, targets) = np.zeros((0, *model.input_shape), np.uint8), _nothing(model)
    if whole or request.HasField("add"):
        x = decode_inputs(given.inputs, f"{field}.inputs", model, limits.support, violations, detached)
        labels, targets = _answers(given, field, len(x) or None, model, limits.support, violations)
    new_labels, new_targets = _nothing(model)
    if request.HasField("relabel"):
        count = len(request.relabel.example_ids)
        new_labels, new_targets = _answers(request.relabel, "relabel", count, model, limits.support, violations)
    rename = tuple((each.label, each.new_label) for each in request.rename_classes)
    check_labels([new for _, new in rename], "rename_classes", violations)
    edits = Edits(
        labels,
        tuple(request.remove_examples),
        tuple(request.remove_classes),
        tuple(request.relabel.example_ids),
        new_labels,
        rename,
        whole,
    )
    return SupportUpdate(edits, x, targets, new_targets)


def _answers(
    given: pb.Support | pb.Relabelling,
    field: str,
    size: int | None,
    model: ModelDescription,
    most: int,
    violations: Violations,
) -> Answers:
    if model.traits.task_kind == "regression":
        return (), decode_targets(given, field, size, model, violations)
    labels = tuple(decode_labels(given, field, size, most, violations) or ())
    return labels, np.zeros((len(labels), 0), np.float32)


def _nothing(model: ModelDescription) -> Answers:
    return (), np.zeros((0, model.traits.target_size), np.float32)
