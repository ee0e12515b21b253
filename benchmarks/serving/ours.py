"""Innerloop as it comes: `innerloop serve` with its default settings, on a GPU rounding as the peers do by default."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from load import Endpoint
from numpy.typing import NDArray
from operation import Operation
from task import MODEL, Task

from innerloop import Client
from innerloop.tensors import decode_tensor, encode_tensor
from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1.tensor_pb2 import Inputs
from innerloop_command.server_process import ServerProcess

SERVICE = "/innerloop.v1.AdaptationService/"


@contextmanager
def serve_innerloop(models: Path, device: str, tasks: list[Task]) -> Iterator[list[Operation]]:
    """Run the server; both ways to ask it, Predict of an adaptation that it keeps for each task."""
    with ServerProcess(models, device=device, precision="tf32" if device == "cuda" else "float32") as server:
        with Client(server.target) as client:
            ids = [client.adapt(MODEL, task.support, task.names).id for task in tasks]
        yield [
            Operation(
                "AdaptPredict",
                Endpoint("grpc", (server.port,), SERVICE + "AdaptPredict"),
                [_adapt_predict(task) for task in tasks],
                lambda answer: _probabilities(pb.AdaptPredictResponse.FromString(answer).predictions),
            ),
            Operation(
                "Predict",
                Endpoint("grpc", (server.port,), SERVICE + "Predict"),
                [_predict(adaptation, task) for adaptation, task in zip(ids, tasks, strict=True)],
                lambda answer: _probabilities(pb.PredictResponse.FromString(answer).predictions),
            ),
        ]


def _adapt_predict(task: Task) -> bytes:
    support = pb.Support(inputs=Inputs(tensor=encode_tensor(task.support)), labels=pb.Labels(values=task.names))
    query = Inputs(tensor=encode_tensor(task.query))
    return pb.AdaptPredictRequest(model=MODEL, support=support, query=query).SerializeToString()


def _predict(adaptation_id: str, task: Task) -> bytes:
    return pb.PredictRequest(
        adaptation_id=adaptation_id, query=Inputs(tensor=encode_tensor(task.query))
    ).SerializeToString()


def _probabilities(predictions: pb.Predictions) -> NDArray[np.float32]:
    return decode_tensor(predictions.probabilities)
