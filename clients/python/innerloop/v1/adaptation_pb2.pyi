import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from innerloop.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIORITY_UNSPECIFIED: _ClassVar[Priority]
    PRIORITY_BATCH: _ClassVar[Priority]
    PRIORITY_NORMAL: _ClassVar[Priority]
    PRIORITY_INTERACTIVE: _ClassVar[Priority]
PRIORITY_UNSPECIFIED: Priority
PRIORITY_BATCH: Priority
PRIORITY_NORMAL: Priority
PRIORITY_INTERACTIVE: Priority

class Labels(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, values: _Optional[_Iterable[str]] = ...) -> None: ...

class Support(_message.Message):
    __slots__ = ("inputs", "labels", "targets")
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    inputs: _tensor_pb2.Inputs
    labels: Labels
    targets: _tensor_pb2.Tensor
    def __init__(self, inputs: _Optional[_Union[_tensor_pb2.Inputs, _Mapping]] = ..., labels: _Optional[_Union[Labels, _Mapping]] = ..., targets: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class AdaptOptions(_message.Message):
    __slots__ = ("steps", "time_to_live", "forget_examples")
    STEPS_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_LIVE_FIELD_NUMBER: _ClassVar[int]
    FORGET_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    steps: int
    time_to_live: _duration_pb2.Duration
    forget_examples: bool
    def __init__(self, steps: _Optional[int] = ..., time_to_live: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., forget_examples: _Optional[bool] = ...) -> None: ...

class Adaptation(_message.Message):
    __slots__ = ("id", "model", "model_version", "classes", "support_size", "steps", "support_losses", "size_bytes", "create_time", "expire_time", "revision", "example_weights")
    ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    SUPPORT_SIZE_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SUPPORT_LOSSES_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    EXAMPLE_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    id: str
    model: str
    model_version: str
    classes: _containers.RepeatedScalarFieldContainer[str]
    support_size: int
    steps: int
    support_losses: _containers.RepeatedScalarFieldContainer[float]
    size_bytes: int
    create_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    revision: int
    example_weights: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, id: _Optional[str] = ..., model: _Optional[str] = ..., model_version: _Optional[str] = ..., classes: _Optional[_Iterable[str]] = ..., support_size: _Optional[int] = ..., steps: _Optional[int] = ..., support_losses: _Optional[_Iterable[float]] = ..., size_bytes: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., revision: _Optional[int] = ..., example_weights: _Optional[_Iterable[float]] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("queue", "adapt", "predict", "encode", "encoder")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    ADAPT_FIELD_NUMBER: _ClassVar[int]
    PREDICT_FIELD_NUMBER: _ClassVar[int]
    ENCODE_FIELD_NUMBER: _ClassVar[int]
    ENCODER_FIELD_NUMBER: _ClassVar[int]
    queue: _duration_pb2.Duration
    adapt: _duration_pb2.Duration
    predict: _duration_pb2.Duration
    encode: _duration_pb2.Duration
    encoder: _duration_pb2.Duration
    def __init__(self, queue: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., adapt: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., predict: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., encode: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., encoder: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Predictions(_message.Message):
    __slots__ = ("classes", "probabilities", "logits", "values", "known", "false_alarms", "known_thresholds", "label_sets", "intervals", "variances")
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    FALSE_ALARMS_FIELD_NUMBER: _ClassVar[int]
    KNOWN_THRESHOLDS_FIELD_NUMBER: _ClassVar[int]
    LABEL_SETS_FIELD_NUMBER: _ClassVar[int]
    INTERVALS_FIELD_NUMBER: _ClassVar[int]
    VARIANCES_FIELD_NUMBER: _ClassVar[int]
    classes: _containers.RepeatedScalarFieldContainer[str]
    probabilities: _tensor_pb2.Tensor
    logits: _tensor_pb2.Tensor
    values: _tensor_pb2.Tensor
    known: _tensor_pb2.Tensor
    false_alarms: _containers.RepeatedScalarFieldContainer[float]
    known_thresholds: _containers.RepeatedScalarFieldContainer[float]
    label_sets: _tensor_pb2.Tensor
    intervals: _tensor_pb2.Tensor
    variances: _tensor_pb2.Tensor
    def __init__(self, classes: _Optional[_Iterable[str]] = ..., probabilities: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., logits: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., values: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., known: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., false_alarms: _Optional[_Iterable[float]] = ..., known_thresholds: _Optional[_Iterable[float]] = ..., label_sets: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., intervals: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., variances: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class AdaptRequest(_message.Message):
    __slots__ = ("model", "support", "options", "request_id", "priority", "diagnose")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SUPPORT_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    DIAGNOSE_FIELD_NUMBER: _ClassVar[int]
    model: str
    support: Support
    options: AdaptOptions
    request_id: str
    priority: Priority
    diagnose: bool
    def __init__(self, model: _Optional[str] = ..., support: _Optional[_Union[Support, _Mapping]] = ..., options: _Optional[_Union[AdaptOptions, _Mapping]] = ..., request_id: _Optional[str] = ..., priority: _Optional[_Union[Priority, str]] = ..., diagnose: _Optional[bool] = ...) -> None: ...

class AdaptResponse(_message.Message):
    __slots__ = ("adaptation", "timings", "diagnosis")
    ADAPTATION_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    DIAGNOSIS_FIELD_NUMBER: _ClassVar[int]
    adaptation: Adaptation
    timings: Timings
    diagnosis: Diagnosis
    def __init__(self, adaptation: _Optional[_Union[Adaptation, _Mapping]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., diagnosis: _Optional[_Union[Diagnosis, _Mapping]] = ...) -> None: ...

class Diagnosis(_message.Message):
    __slots__ = ("doubts", "likely_classes", "expected_accuracy", "alike")
    DOUBTS_FIELD_NUMBER: _ClassVar[int]
    LIKELY_CLASSES_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    ALIKE_FIELD_NUMBER: _ClassVar[int]
    doubts: _containers.RepeatedScalarFieldContainer[float]
    likely_classes: _containers.RepeatedScalarFieldContainer[int]
    expected_accuracy: ExpectedAccuracy
    alike: _containers.RepeatedCompositeFieldContainer[AlikeClasses]
    def __init__(self, doubts: _Optional[_Iterable[float]] = ..., likely_classes: _Optional[_Iterable[int]] = ..., expected_accuracy: _Optional[_Union[ExpectedAccuracy, _Mapping]] = ..., alike: _Optional[_Iterable[_Union[AlikeClasses, _Mapping]]] = ...) -> None: ...

class ExpectedAccuracy(_message.Message):
    __slots__ = ("value", "low", "high", "examples")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    value: float
    low: float
    high: float
    examples: int
    def __init__(self, value: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., examples: _Optional[int] = ...) -> None: ...

class AlikeClasses(_message.Message):
    __slots__ = ("first", "second", "confusion")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    CONFUSION_FIELD_NUMBER: _ClassVar[int]
    first: int
    second: int
    confusion: float
    def __init__(self, first: _Optional[int] = ..., second: _Optional[int] = ..., confusion: _Optional[float] = ...) -> None: ...

class PredictRequest(_message.Message):
    __slots__ = ("adaptation_id", "query", "return_logits", "priority", "coverage")
    ADAPTATION_ID_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    RETURN_LOGITS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    adaptation_id: str
    query: _tensor_pb2.Inputs
    return_logits: bool
    priority: Priority
    coverage: float
    def __init__(self, adaptation_id: _Optional[str] = ..., query: _Optional[_Union[_tensor_pb2.Inputs, _Mapping]] = ..., return_logits: _Optional[bool] = ..., priority: _Optional[_Union[Priority, str]] = ..., coverage: _Optional[float] = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("predictions", "timings")
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    predictions: Predictions
    timings: Timings
    def __init__(self, predictions: _Optional[_Union[Predictions, _Mapping]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ...) -> None: ...

class StreamPredictRequest(_message.Message):
    __slots__ = ("sequence", "adaptation_id", "query", "return_logits", "priority", "coverage")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ADAPTATION_ID_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    RETURN_LOGITS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    adaptation_id: str
    query: _tensor_pb2.Inputs
    return_logits: bool
    priority: Priority
    coverage: float
    def __init__(self, sequence: _Optional[int] = ..., adaptation_id: _Optional[str] = ..., query: _Optional[_Union[_tensor_pb2.Inputs, _Mapping]] = ..., return_logits: _Optional[bool] = ..., priority: _Optional[_Union[Priority, str]] = ..., coverage: _Optional[float] = ...) -> None: ...

class StreamPredictResponse(_message.Message):
    __slots__ = ("sequence", "predictions", "error", "timings")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    predictions: Predictions
    error: _status_pb2.Status
    timings: Timings
    def __init__(self, sequence: _Optional[int] = ..., predictions: _Optional[_Union[Predictions, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ...) -> None: ...

class AdaptPredictRequest(_message.Message):
    __slots__ = ("model", "support", "query", "options", "return_logits", "keep", "request_id", "priority", "coverage")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SUPPORT_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    RETURN_LOGITS_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    model: str
    support: Support
    query: _tensor_pb2.Inputs
    options: AdaptOptions
    return_logits: bool
    keep: bool
    request_id: str
    priority: Priority
    coverage: float
    def __init__(self, model: _Optional[str] = ..., support: _Optional[_Union[Support, _Mapping]] = ..., query: _Optional[_Union[_tensor_pb2.Inputs, _Mapping]] = ..., options: _Optional[_Union[AdaptOptions, _Mapping]] = ..., return_logits: _Optional[bool] = ..., keep: _Optional[bool] = ..., request_id: _Optional[str] = ..., priority: _Optional[_Union[Priority, str]] = ..., coverage: _Optional[float] = ...) -> None: ...

class AdaptPredictResponse(_message.Message):
    __slots__ = ("predictions", "adaptation", "timings")
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    ADAPTATION_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    predictions: Predictions
    adaptation: Adaptation
    timings: Timings
    def __init__(self, predictions: _Optional[_Union[Predictions, _Mapping]] = ..., adaptation: _Optional[_Union[Adaptation, _Mapping]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ...) -> None: ...

class GetAdaptationRequest(_message.Message):
    __slots__ = ("adaptation_id",)
    ADAPTATION_ID_FIELD_NUMBER: _ClassVar[int]
    adaptation_id: str
    def __init__(self, adaptation_id: _Optional[str] = ...) -> None: ...

class GetAdaptationResponse(_message.Message):
    __slots__ = ("adaptation",)
    ADAPTATION_FIELD_NUMBER: _ClassVar[int]
    adaptation: Adaptation
    def __init__(self, adaptation: _Optional[_Union[Adaptation, _Mapping]] = ...) -> None: ...

class ListAdaptationsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "model")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    model: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class ListAdaptationsResponse(_message.Message):
    __slots__ = ("adaptations", "next_page_token")
    ADAPTATIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    adaptations: _containers.RepeatedCompositeFieldContainer[Adaptation]
    next_page_token: str
    def __init__(self, adaptations: _Optional[_Iterable[_Union[Adaptation, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class Relabelling(_message.Message):
    __slots__ = ("example_ids", "labels", "targets")
    EXAMPLE_IDS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    example_ids: _containers.RepeatedScalarFieldContainer[int]
    labels: Labels
    targets: _tensor_pb2.Tensor
    def __init__(self, example_ids: _Optional[_Iterable[int]] = ..., labels: _Optional[_Union[Labels, _Mapping]] = ..., targets: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class RenamedClass(_message.Message):
    __slots__ = ("label", "new_label")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    NEW_LABEL_FIELD_NUMBER: _ClassVar[int]
    label: str
    new_label: str
    def __init__(self, label: _Optional[str] = ..., new_label: _Optional[str] = ...) -> None: ...

class UpdateAdaptationRequest(_message.Message):
    __slots__ = ("adaptation_id", "add", "remove_examples", "remove_classes", "relabel", "rename_classes", "support", "expected_revision", "request_id", "priority")
    ADAPTATION_ID_FIELD_NUMBER: _ClassVar[int]
    ADD_FIELD_NUMBER: _ClassVar[int]
    REMOVE_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    REMOVE_CLASSES_FIELD_NUMBER: _ClassVar[int]
    RELABEL_FIELD_NUMBER: _ClassVar[int]
    RENAME_CLASSES_FIELD_NUMBER: _ClassVar[int]
    SUPPORT_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    adaptation_id: str
    add: Support
    remove_examples: _containers.RepeatedScalarFieldContainer[int]
    remove_classes: _containers.RepeatedScalarFieldContainer[str]
    relabel: Relabelling
    rename_classes: _containers.RepeatedCompositeFieldContainer[RenamedClass]
    support: Support
    expected_revision: int
    request_id: str
    priority: Priority
    def __init__(self, adaptation_id: _Optional[str] = ..., add: _Optional[_Union[Support, _Mapping]] = ..., remove_examples: _Optional[_Iterable[int]] = ..., remove_classes: _Optional[_Iterable[str]] = ..., relabel: _Optional[_Union[Relabelling, _Mapping]] = ..., rename_classes: _Optional[_Iterable[_Union[RenamedClass, _Mapping]]] = ..., support: _Optional[_Union[Support, _Mapping]] = ..., expected_revision: _Optional[int] = ..., request_id: _Optional[str] = ..., priority: _Optional[_Union[Priority, str]] = ...) -> None: ...

class UpdateAdaptationResponse(_message.Message):
    __slots__ = ("adaptation", "timings", "example_ids")
    ADAPTATION_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    EXAMPLE_IDS_FIELD_NUMBER: _ClassVar[int]
    adaptation: Adaptation
    timings: Timings
    example_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, adaptation: _Optional[_Union[Adaptation, _Mapping]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., example_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class ListExamplesRequest(_message.Message):
    __slots__ = ("adaptation_id", "diagnose", "priority")
    ADAPTATION_ID_FIELD_NUMBER: _ClassVar[int]
    DIAGNOSE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    adaptation_id: str
    diagnose: bool
    priority: Priority
    def __init__(self, adaptation_id: _Optional[str] = ..., diagnose: _Optional[bool] = ..., priority: _Optional[_Union[Priority, str]] = ...) -> None: ...

class ListExamplesResponse(_message.Message):
    __slots__ = ("example_ids", "labels", "targets", "revision", "diagnosis", "classes")
    EXAMPLE_IDS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DIAGNOSIS_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    example_ids: _containers.RepeatedScalarFieldContainer[int]
    labels: Labels
    targets: _tensor_pb2.Tensor
    revision: int
    diagnosis: Diagnosis
    classes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, example_ids: _Optional[_Iterable[int]] = ..., labels: _Optional[_Union[Labels, _Mapping]] = ..., targets: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., revision: _Optional[int] = ..., diagnosis: _Optional[_Union[Diagnosis, _Mapping]] = ..., classes: _Optional[_Iterable[str]] = ...) -> None: ...

class DownloadAdaptationRequest(_message.Message):
    __slots__ = ("adaptation_id",)
    ADAPTATION_ID_FIELD_NUMBER: _ClassVar[int]
    adaptation_id: str
    def __init__(self, adaptation_id: _Optional[str] = ...) -> None: ...

class PortableFile(_message.Message):
    __slots__ = ("name", "size_bytes", "digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    size_bytes: int
    digest: bytes
    def __init__(self, name: _Optional[str] = ..., size_bytes: _Optional[int] = ..., digest: _Optional[bytes] = ...) -> None: ...

class DownloadAdaptationResponse(_message.Message):
    __slots__ = ("file", "chunk")
    FILE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    file: PortableFile
    chunk: bytes
    def __init__(self, file: _Optional[_Union[PortableFile, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class DeleteAdaptationRequest(_message.Message):
    __slots__ = ("adaptation_id",)
    ADAPTATION_ID_FIELD_NUMBER: _ClassVar[int]
    adaptation_id: str
    def __init__(self, adaptation_id: _Optional[str] = ...) -> None: ...

class DeleteAdaptationResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
