"""Messages of the wire contract from arrays, and back, without the SDK."""

from typing import Any, NamedTuple

import grpc
import numpy as np
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1 import tensor_pb2

DATA_TYPES = {
    "uint8": tensor_pb2.DATA_TYPE_UINT8,
    "int64": tensor_pb2.DATA_TYPE_INT64,
    "float16": tensor_pb2.DATA_TYPE_FLOAT16,
    "float32": tensor_pb2.DATA_TYPE_FLOAT32,
    "float64": tensor_pb2.DATA_TYPE_FLOAT64,
}


def tensor(array: Any) -> tensor_pb2.Tensor:
    """An array as it travels."""
    return tensor_pb2.Tensor(data_type=DATA_TYPES[array.dtype.name], shape=array.shape, data=array.tobytes())


def inputs(array: Any) -> tensor_pb2.Inputs:
    """Examples as they travel."""
    return tensor_pb2.Inputs(tensor=tensor(array))


def images(*files: bytes) -> tensor_pb2.Inputs:
    """Image files as they travel."""
    return tensor_pb2.Inputs(images=tensor_pb2.EncodedImages(files=files))


def texts(*values: str) -> tensor_pb2.Inputs:
    """Texts as they travel."""
    return tensor_pb2.Inputs(texts=tensor_pb2.Texts(values=values))


def audio_files(*files: bytes) -> tensor_pb2.Inputs:
    """Files of sound as they travel."""
    return tensor_pb2.Inputs(audio_files=tensor_pb2.AudioFiles(files=files))


def waveforms(*recordings: tuple[Any, int]) -> tensor_pb2.Inputs:
    """Samples, each recording's with its rate, as they travel."""
    values = [
        tensor_pb2.Waveform(samples=samples.astype("<f4").tobytes(), sample_rate=rate) for samples, rate in recordings
    ]
    return tensor_pb2.Inputs(waveforms=tensor_pb2.Waveforms(values=values))


def support(x: Any, labels: Any) -> pb.Support:
    """A labelled support set."""
    return pb.Support(inputs=inputs(x), labels=pb.Labels(values=list(labels)))


def regression_support(x: Any, y: Any) -> pb.Support:
    """A support set with targets."""
    return pb.Support(inputs=inputs(x), targets=tensor(y))


def array(message: tensor_pb2.Tensor) -> Any:
    """A float32 tensor as an array."""
    return np.frombuffer(message.data, np.float32).reshape(message.shape)


class Problem(NamedTuple):
    """What a failed call says of itself."""

    code: grpc.StatusCode
    message: str
    reason: str
    fields: dict[str, str]
    retry_after: float | None
    request_id: str
    facts: dict[str, str]


def problem(error: grpc.RpcError) -> Problem:
    """Read the status, the google.rpc details and the request id of a failed call."""
    metadata = dict(error.trailing_metadata() or ())
    status = Status.FromString(metadata.get("grpc-status-details-bin", b""))
    reason, fields, retry_after, facts = "", {}, None, {}
    for detail in status.details:
        info, bad, retry = ErrorInfo(), BadRequest(), RetryInfo()
        if detail.Unpack(info):
            assert info.domain == "innerloop"
            reason, facts = info.reason, dict(info.metadata)
        elif detail.Unpack(bad):
            fields = {violation.field: violation.description for violation in bad.field_violations}
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToNanoseconds() / 1e9
    request_id = metadata.get("innerloop-request-id", "")
    return Problem(error.code(), error.details(), reason, fields, retry_after, request_id, facts)
