"""Innerloop's Python SDK: adapt a served model to a handful of examples and ask it questions."""

from innerloop.adaptation import Adaptation, AsyncAdaptation
from innerloop.adaptation_info import AdaptationInfo
from innerloop.async_client import AsyncClient
from innerloop.channel import TLS
from innerloop.client import Client
from innerloop.errors import (
    AdaptationEvictedError,
    AdaptationNotFoundError,
    ClientClosedError,
    DeadlineExceededError,
    FailedPreconditionError,
    FieldViolation,
    InnerloopError,
    InternalError,
    InvalidArgumentError,
    MissingAnswerError,
    ModelLoadingError,
    ModelNotFoundError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
)
from innerloop.models import Metric, Model, TaskLimits
from innerloop.predictions import Prediction, Predictions
from innerloop.timings import Timings

__all__ = [
    "TLS",
    "Adaptation",
    "AdaptationEvictedError",
    "AdaptationInfo",
    "AdaptationNotFoundError",
    "AsyncAdaptation",
    "AsyncClient",
    "Client",
    "ClientClosedError",
    "DeadlineExceededError",
    "FailedPreconditionError",
    "FieldViolation",
    "InnerloopError",
    "InternalError",
    "InvalidArgumentError",
    "Metric",
    "MissingAnswerError",
    "Model",
    "ModelLoadingError",
    "ModelNotFoundError",
    "NotFoundError",
    "OverloadedError",
    "PermissionDeniedError",
    "Prediction",
    "Predictions",
    "ResourceExhaustedError",
    "TaskLimits",
    "Timings",
    "UnauthenticatedError",
    "UnavailableError",
]
