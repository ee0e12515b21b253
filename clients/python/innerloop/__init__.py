"""Innerloop's Python SDK: adapt a served model to a handful of examples and ask it questions.

What a client does is written once, as generators of operations (`steps`): `operations`, `adaptation_core` and
`stream_core`, on a `connection_core`. `client`, `adaptation`, `connection` and `predict_stream` carry the steps out,
for threads and for event loops. On the way to the server, `inputs`, `recordings` and `labels` read what callers hold,
`examples` and `recipe` keep it ready to be sent, `changes` says what shall be different and `own_examples` what is,
`splitting` cuts it to the server's limits, `priority` says how urgent it is, and `calls` describes each remote call. On
the way back, `status` turns failures into `errors`, and `predictions` and
`diagnosis` hold the answers, and `suggestions` choose from them what to label next. `channel` and `links` look
after connections, `retry` after failures that pass, `mistakes` after settings that can't work.
"""

from innerloop.adaptation import Adaptation, AsyncAdaptation
from innerloop.adaptation_info import AdaptationInfo
from innerloop.async_client import AsyncClient
from innerloop.changes import Example
from innerloop.channel import TLS
from innerloop.client import Client
from innerloop.diagnosis import AlikeClasses, Diagnosis, ExpectedAccuracy
from innerloop.errors import (
    AdaptationDamagedError,
    AdaptationEvictedError,
    AdaptationNotFoundError,
    ClientClosedError,
    DeadlineExceededError,
    ExamplesNotKeptError,
    FailedPreconditionError,
    FieldViolation,
    InnerloopError,
    InternalError,
    InvalidArgumentError,
    MissingAnswerError,
    ModelLoadingError,
    ModelNotFoundError,
    ModelRetiredError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ResourceExhaustedError,
    RevisionChangedError,
    UnauthenticatedError,
    UnavailableError,
)
from innerloop.models import Metric, Migration, Model, ModelAlias, ModelVersion, TaskLimits
from innerloop.predictions import Prediction, Predictions
from innerloop.timings import Timings

__all__ = [
    "TLS",
    "Adaptation",
    "AdaptationDamagedError",
    "AdaptationEvictedError",
    "AdaptationInfo",
    "AdaptationNotFoundError",
    "AlikeClasses",
    "AsyncAdaptation",
    "AsyncClient",
    "Client",
    "ClientClosedError",
    "DeadlineExceededError",
    "Diagnosis",
    "Example",
    "ExamplesNotKeptError",
    "ExpectedAccuracy",
    "FailedPreconditionError",
    "FieldViolation",
    "InnerloopError",
    "InternalError",
    "InvalidArgumentError",
    "Metric",
    "Migration",
    "MissingAnswerError",
    "Model",
    "ModelAlias",
    "ModelLoadingError",
    "ModelNotFoundError",
    "ModelRetiredError",
    "ModelVersion",
    "NotFoundError",
    "OverloadedError",
    "PermissionDeniedError",
    "Prediction",
    "Predictions",
    "ResourceExhaustedError",
    "RevisionChangedError",
    "TaskLimits",
    "Timings",
    "UnauthenticatedError",
    "UnavailableError",
]
