from innerloop.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_STATE_UNSPECIFIED: _ClassVar[ModelState]
    MODEL_STATE_LOADING: _ClassVar[ModelState]
    MODEL_STATE_READY: _ClassVar[ModelState]
    MODEL_STATE_FAILED: _ClassVar[ModelState]

class TaskKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TASK_KIND_UNSPECIFIED: _ClassVar[TaskKind]
    TASK_KIND_CLASSIFICATION: _ClassVar[TaskKind]
    TASK_KIND_REGRESSION: _ClassVar[TaskKind]

class WaysChange(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WAYS_CHANGE_UNSPECIFIED: _ClassVar[WaysChange]
    WAYS_CHANGE_NONE: _ClassVar[WaysChange]
    WAYS_CHANGE_FEWER: _ClassVar[WaysChange]
    WAYS_CHANGE_ANY: _ClassVar[WaysChange]

class InputKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INPUT_KIND_UNSPECIFIED: _ClassVar[InputKind]
    INPUT_KIND_TENSOR: _ClassVar[InputKind]
    INPUT_KIND_TEXT: _ClassVar[InputKind]
    INPUT_KIND_AUDIO: _ClassVar[InputKind]

class MigrationState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MIGRATION_STATE_UNSPECIFIED: _ClassVar[MigrationState]
    MIGRATION_STATE_NONE: _ClassVar[MigrationState]
    MIGRATION_STATE_RUNNING: _ClassVar[MigrationState]
    MIGRATION_STATE_DONE: _ClassVar[MigrationState]
    MIGRATION_STATE_STOPPED: _ClassVar[MigrationState]
MODEL_STATE_UNSPECIFIED: ModelState
MODEL_STATE_LOADING: ModelState
MODEL_STATE_READY: ModelState
MODEL_STATE_FAILED: ModelState
TASK_KIND_UNSPECIFIED: TaskKind
TASK_KIND_CLASSIFICATION: TaskKind
TASK_KIND_REGRESSION: TaskKind
WAYS_CHANGE_UNSPECIFIED: WaysChange
WAYS_CHANGE_NONE: WaysChange
WAYS_CHANGE_FEWER: WaysChange
WAYS_CHANGE_ANY: WaysChange
INPUT_KIND_UNSPECIFIED: InputKind
INPUT_KIND_TENSOR: InputKind
INPUT_KIND_TEXT: InputKind
INPUT_KIND_AUDIO: InputKind
MIGRATION_STATE_UNSPECIFIED: MigrationState
MIGRATION_STATE_NONE: MigrationState
MIGRATION_STATE_RUNNING: MigrationState
MIGRATION_STATE_DONE: MigrationState
MIGRATION_STATE_STOPPED: MigrationState

class TaskLimits(_message.Message):
    __slots__ = ("trained_ways", "trained_shots", "trained_steps", "max_ways", "max_support", "max_query", "max_steps", "max_text_bytes", "max_request_bytes", "max_audio_seconds")
    TRAINED_WAYS_FIELD_NUMBER: _ClassVar[int]
    TRAINED_SHOTS_FIELD_NUMBER: _ClassVar[int]
    TRAINED_STEPS_FIELD_NUMBER: _ClassVar[int]
    MAX_WAYS_FIELD_NUMBER: _ClassVar[int]
    MAX_SUPPORT_FIELD_NUMBER: _ClassVar[int]
    MAX_QUERY_FIELD_NUMBER: _ClassVar[int]
    MAX_STEPS_FIELD_NUMBER: _ClassVar[int]
    MAX_TEXT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_AUDIO_SECONDS_FIELD_NUMBER: _ClassVar[int]
    trained_ways: int
    trained_shots: int
    trained_steps: int
    max_ways: int
    max_support: int
    max_query: int
    max_steps: int
    max_text_bytes: int
    max_request_bytes: int
    max_audio_seconds: int
    def __init__(self, trained_ways: _Optional[int] = ..., trained_shots: _Optional[int] = ..., trained_steps: _Optional[int] = ..., max_ways: _Optional[int] = ..., max_support: _Optional[int] = ..., max_query: _Optional[int] = ..., max_steps: _Optional[int] = ..., max_text_bytes: _Optional[int] = ..., max_request_bytes: _Optional[int] = ..., max_audio_seconds: _Optional[int] = ...) -> None: ...

class Metric(_message.Message):
    __slots__ = ("name", "value", "confidence_interval", "protocol")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    confidence_interval: float
    protocol: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., confidence_interval: _Optional[float] = ..., protocol: _Optional[str] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "state", "method", "task_kind", "input_shape", "input_data_type", "target_size", "limits", "metrics", "digest", "error", "ways_can_change", "order_matters", "gradients_at_serving", "input_kind", "sample_rate", "versions", "aliases", "extends", "calibrated")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    TASK_KIND_FIELD_NUMBER: _ClassVar[int]
    INPUT_SHAPE_FIELD_NUMBER: _ClassVar[int]
    INPUT_DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    TARGET_SIZE_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    WAYS_CAN_CHANGE_FIELD_NUMBER: _ClassVar[int]
    ORDER_MATTERS_FIELD_NUMBER: _ClassVar[int]
    GRADIENTS_AT_SERVING_FIELD_NUMBER: _ClassVar[int]
    INPUT_KIND_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    EXTENDS_FIELD_NUMBER: _ClassVar[int]
    CALIBRATED_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    state: ModelState
    method: str
    task_kind: TaskKind
    input_shape: _containers.RepeatedScalarFieldContainer[int]
    input_data_type: _tensor_pb2.DataType
    target_size: int
    limits: TaskLimits
    metrics: _containers.RepeatedCompositeFieldContainer[Metric]
    digest: str
    error: str
    ways_can_change: WaysChange
    order_matters: bool
    gradients_at_serving: bool
    input_kind: InputKind
    sample_rate: int
    versions: _containers.RepeatedCompositeFieldContainer[ModelVersion]
    aliases: _containers.RepeatedCompositeFieldContainer[ModelAlias]
    extends: bool
    calibrated: bool
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., state: _Optional[_Union[ModelState, str]] = ..., method: _Optional[str] = ..., task_kind: _Optional[_Union[TaskKind, str]] = ..., input_shape: _Optional[_Iterable[int]] = ..., input_data_type: _Optional[_Union[_tensor_pb2.DataType, str]] = ..., target_size: _Optional[int] = ..., limits: _Optional[_Union[TaskLimits, _Mapping]] = ..., metrics: _Optional[_Iterable[_Union[Metric, _Mapping]]] = ..., digest: _Optional[str] = ..., error: _Optional[str] = ..., ways_can_change: _Optional[_Union[WaysChange, str]] = ..., order_matters: _Optional[bool] = ..., gradients_at_serving: _Optional[bool] = ..., input_kind: _Optional[_Union[InputKind, str]] = ..., sample_rate: _Optional[int] = ..., versions: _Optional[_Iterable[_Union[ModelVersion, _Mapping]]] = ..., aliases: _Optional[_Iterable[_Union[ModelAlias, _Mapping]]] = ..., extends: _Optional[bool] = ..., calibrated: _Optional[bool] = ...) -> None: ...

class ModelVersion(_message.Message):
    __slots__ = ("folder", "version", "digest", "state", "error")
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    folder: str
    version: str
    digest: str
    state: ModelState
    error: str
    def __init__(self, folder: _Optional[str] = ..., version: _Optional[str] = ..., digest: _Optional[str] = ..., state: _Optional[_Union[ModelState, str]] = ..., error: _Optional[str] = ...) -> None: ...

class ModelAlias(_message.Message):
    __slots__ = ("name", "version", "wanted", "percent")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    wanted: str
    percent: float
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., wanted: _Optional[str] = ..., percent: _Optional[float] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class LoadModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class LoadModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class UnloadModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class UnloadModelResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SetAliasRequest(_message.Message):
    __slots__ = ("model", "alias", "version", "percent")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    model: str
    alias: str
    version: str
    percent: float
    def __init__(self, model: _Optional[str] = ..., alias: _Optional[str] = ..., version: _Optional[str] = ..., percent: _Optional[float] = ...) -> None: ...

class SetAliasResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class Migration(_message.Message):
    __slots__ = ("model", "version", "state", "migrated", "failed", "without_recipe", "examined", "stored", "error")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MIGRATED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_RECIPE_FIELD_NUMBER: _ClassVar[int]
    EXAMINED_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    state: MigrationState
    migrated: int
    failed: int
    without_recipe: int
    examined: int
    stored: int
    error: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., state: _Optional[_Union[MigrationState, str]] = ..., migrated: _Optional[int] = ..., failed: _Optional[int] = ..., without_recipe: _Optional[int] = ..., examined: _Optional[int] = ..., stored: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class MigrateAdaptationsRequest(_message.Message):
    __slots__ = ("model", "version")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class MigrateAdaptationsResponse(_message.Message):
    __slots__ = ("migration",)
    MIGRATION_FIELD_NUMBER: _ClassVar[int]
    migration: Migration
    def __init__(self, migration: _Optional[_Union[Migration, _Mapping]] = ...) -> None: ...

class GetMigrationRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GetMigrationResponse(_message.Message):
    __slots__ = ("migration",)
    MIGRATION_FIELD_NUMBER: _ClassVar[int]
    migration: Migration
    def __init__(self, migration: _Optional[_Union[Migration, _Mapping]] = ...) -> None: ...
