"""Domain objects to response messages."""

import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1 import model_pb2, tensor_pb2
from innerloop_learner.calibration import FALSE_ALARMS
from innerloop_learner.diagnosis import Diagnosis
from innerloop_learner.encoders import MAX_TEXT_BYTES
from innerloop_learner.media import MAX_AUDIO_SECONDS
from innerloop_server.domain.adaptations import Adaptation
from innerloop_server.domain.answers import Answers
from innerloop_server.domain.examples import ListedExamples
from innerloop_server.domain.migrations import Migration, MigrationState
from innerloop_server.domain.model_versions import STABLE, ModelVersions
from innerloop_server.domain.models import ModelEntry, ModelState
from innerloop_server.domain.timings import Timings
from innerloop_server.transport.codec.inputs import most_examples
from innerloop_server.transport.codec.requests import RequestLimits
from innerloop_server.transport.codec.tensors import encode_flags, encode_tensor

STATES = {
    ModelState.LOADING: model_pb2.MODEL_STATE_LOADING,
    ModelState.READY: model_pb2.MODEL_STATE_READY,
    ModelState.FAILED: model_pb2.MODEL_STATE_FAILED,
}
MIGRATION_STATES = {
    MigrationState.NONE: model_pb2.MIGRATION_STATE_NONE,
    MigrationState.RUNNING: model_pb2.MIGRATION_STATE_RUNNING,
    MigrationState.DONE: model_pb2.MIGRATION_STATE_DONE,
    MigrationState.STOPPED: model_pb2.MIGRATION_STATE_STOPPED,
}
TASK_KINDS = {
    "classification": model_pb2.TASK_KIND_CLASSIFICATION,
    "regression": model_pb2.TASK_KIND_REGRESSION,
}
WAYS_CHANGES = {
    "no": model_pb2.WAYS_CHANGE_NONE,
    "fewer": model_pb2.WAYS_CHANGE_FEWER,
    "any": model_pb2.WAYS_CHANGE_ANY,
}
INPUT_KINDS = {
    "tensor": model_pb2.INPUT_KIND_TENSOR,
    "text": model_pb2.INPUT_KIND_TEXT,
    "audio": model_pb2.INPUT_KIND_AUDIO,
}
DATA_TYPES = {"uint8": tensor_pb2.DATA_TYPE_UINT8, "float32": tensor_pb2.DATA_TYPE_FLOAT32}


def encode_adaptation(adaptation: Adaptation) -> pb.Adaptation:
    """An adaptation as its owner may see it."""
    return pb.Adaptation(
        id=adaptation.id,
        model=adaptation.model,
        model_version=adaptation.model_version,
        classes=adaptation.classes,
        support_size=adaptation.support_size,
        steps=adaptation.steps,
        support_losses=adaptation.losses,
        size_bytes=adaptation.size_bytes,
        create_time=_timestamp(adaptation.created_ns),
        expire_time=None if adaptation.expires_ns is None else _timestamp(adaptation.expires_ns),
        revision=adaptation.revision,
        example_weights=adaptation.example_weights,
    )


def encode_diagnosis(diagnosis: Diagnosis) -> pb.Diagnosis:
    """What the examples say about each other."""
    encoded = pb.Diagnosis(
        doubts=diagnosis.doubts,
        likely_classes=diagnosis.likely_classes,
        alike=[
            pb.AlikeClasses(first=each.first, second=each.second, confusion=each.confusion) for each in diagnosis.alike
        ],
    )
    if (expected := diagnosis.expected_accuracy) is not None:
        encoded.expected_accuracy.CopyFrom(
            pb.ExpectedAccuracy(value=expected.value, low=expected.low, high=expected.high, examples=expected.examples)
        )
    return encoded


def encode_examples(listed: ListedExamples) -> pb.ListExamplesResponse:
    """The examples of an adaptation, without their inputs."""
    response = pb.ListExamplesResponse(example_ids=listed.ids, revision=listed.revision)
    if listed.targets:
        response.targets.CopyFrom(encode_tensor(np.array(listed.targets, np.float32)))
    else:
        response.labels.values.extend(listed.labels)
    if listed.diagnosis is not None:
        response.diagnosis.CopyFrom(encode_diagnosis(listed.diagnosis))
        response.classes.extend(listed.classes)
    return response


def encode_answers(answers: Answers, classes: tuple[str, ...], *, logits: bool) -> pb.Predictions:
    """Answers, with logits on demand."""
    if answers.values is not None:
        predictions = pb.Predictions(values=encode_tensor(answers.values))
        if answers.variances is not None:
            predictions.variances.CopyFrom(encode_tensor(answers.variances))
        if answers.intervals is not None:
            predictions.intervals.CopyFrom(encode_tensor(answers.intervals))
        return predictions
    predictions = pb.Predictions(classes=classes)
    if answers.probabilities is not None:
        predictions.probabilities.CopyFrom(encode_tensor(answers.probabilities))
    if logits and answers.logits is not None:
        predictions.logits.CopyFrom(encode_tensor(answers.logits))
    if answers.known is not None:
        predictions.MergeFrom(
            pb.Predictions(
                known=encode_tensor(answers.known), false_alarms=FALSE_ALARMS, known_thresholds=answers.thresholds
            )
        )
    if answers.label_sets is not None:
        predictions.label_sets.CopyFrom(encode_flags(answers.label_sets))
    return predictions


def encode_timings(timings: Timings, encode_seconds: float) -> pb.Timings:
    """The time that one call spent in each phase."""
    return pb.Timings(
        queue=_duration(timings.queue),
        adapt=_duration(timings.adapt),
        predict=_duration(timings.predict),
        encode=_duration(encode_seconds),
        encoder=_duration(timings.encoder),
    )


def encode_model(model: ModelVersions, entry: ModelEntry, limits: RequestLimits) -> model_pb2.Model:
    """A model and its versions, of which one, whatever its state, is described at length."""
    described = _encode_description(entry, limits)
    described.name, described.state, described.error = model.name, STATES[entry.state], entry.error
    described.versions.extend(
        model_pb2.ModelVersion(
            folder=each.folder,
            version="" if each.description is None else each.description.version,
            digest=each.digest,
            state=STATES[each.state],
            error=each.error,
        )
        for each in model.versions
    )
    if model.alias(STABLE) is None and model.stable.state is ModelState.READY:
        described.aliases.add(name=STABLE, version=model.stable.label)
    for alias in model.aliases:
        described.aliases.add(name=alias.name, version=alias.version, wanted=alias.wanted, percent=alias.percent)
    return described


def _encode_description(entry: ModelEntry, limits: RequestLimits) -> model_pb2.Model:
    description = entry.description
    if description is None:
        return model_pb2.Model()
    traits = description.traits
    return model_pb2.Model(
        version=description.version,
        method=description.method,
        task_kind=TASK_KINDS[traits.task_kind],
        input_shape=description.input_shape,
        input_data_type=DATA_TYPES[description.input_dtype],
        target_size=traits.target_size,
        limits=model_pb2.TaskLimits(
            trained_ways=description.trained_ways,
            trained_shots=description.trained_shots,
            trained_steps=description.trained_steps,
            max_ways=traits.max_ways,
            max_support=most_examples(limits.support, description),
            max_query=most_examples(limits.query, description),
            max_steps=traits.max_steps,
            max_request_bytes=limits.message_bytes,
            max_text_bytes=MAX_TEXT_BYTES if description.input_kind == "text" else 0,
            max_audio_seconds=MAX_AUDIO_SECONDS if description.input_kind == "audio" else 0,
        ),
        metrics=[
            model_pb2.Metric(
                name=metric.name,
                value=metric.value,
                confidence_interval=metric.confidence_interval,
                protocol=metric.protocol,
            )
            for metric in description.metrics
        ],
        digest=description.digest,
        ways_can_change=WAYS_CHANGES[traits.ways_can_change],
        order_matters=traits.order_matters,
        gradients_at_serving=traits.gradients_at_serving,
        input_kind=INPUT_KINDS[description.input_kind],
        sample_rate=description.sample_rate,
        extends=traits.extends,
        calibrated=description.calibrated,
    )


def encode_migration(migration: Migration) -> model_pb2.Migration:
    """How far a migration is."""
    return model_pb2.Migration(
        model=migration.model,
        version=migration.version,
        state=MIGRATION_STATES[migration.state],
        migrated=migration.migrated,
        failed=migration.failed,
        without_recipe=migration.without_recipe,
        examined=migration.examined,
        stored=migration.stored,
        error=migration.error,
    )


def _timestamp(nanoseconds: int) -> Timestamp:
    return Timestamp(seconds=nanoseconds // 10**9, nanos=nanoseconds % 10**9)


def _duration(seconds: float) -> Duration:
    nanoseconds = round(seconds * 1e9)
    return Duration(seconds=nanoseconds // 10**9, nanos=nanoseconds % 10**9)
