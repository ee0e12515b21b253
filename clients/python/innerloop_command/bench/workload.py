"""Requests with random content that fits a model, serialised beforehand so that sending one costs next to nothing."""

from dataclasses import dataclass

import numpy as np
from google.protobuf.duration_pb2 import Duration

from innerloop.calls import new_request_id
from innerloop.errors import FailedPreconditionError, InvalidArgumentError
from innerloop.models import Model
from innerloop.tensors import encode_tensor
from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1.tensor_pb2 import Inputs, Texts, Waveform, Waveforms
from innerloop_command.bench.settings import BenchSettings

VARIANTS = 16
"""Different requests of each kind; fewer where these would take more than `MEMORY`."""

MEMORY = 32 * 2**20
"""Bytes of prepared requests, about."""

REGRESSION_EXAMPLES = 5
"""Support examples for regression models that were not trained for a number of them."""
DEFAULT_WAYS, DEFAULT_SHOTS = 5, 1
"""Size of tasks for models that were not trained for tasks of one size."""

WORDS = (
    "how",
    "do",
    "I",
    "where",
    "is",
    "my",
    "card",
    "account",
    "transfer",
    "money",
    "why",
    "was",
    "not",
    "the",
    "rate",
)
"""Words that random texts are made of."""

NOISE_LEVEL = 0.1
"""Standard deviation of the samples of random recordings: that of speech at a usual level."""

MEASURED_LIFE = Duration(seconds=1)
"""How long adaptations of measured Adapt calls live. They must not fill the server in a long run, and deleting each
would add calls that nobody asked to be measured."""


@dataclass(frozen=True)
class TaskSize:
    """The size of the tasks of a run.

    Attributes:
        ways: classes; 0 for regression.
        support: examples to adapt on.
        queries: inputs a request asks about.
        request_bytes: of an AdaptPredict request, which has both.
    """

    ways: int
    support: int
    queries: int
    request_bytes: int


class Workload:
    """Serialised requests; every method returns the bytes of one message.

    Serialised messages can be joined: their fields add up. So the large part of a request, which stays the same, is
    serialised once, and only the small part, such as an id, is serialised anew each time.
    """

    def __init__(self, model: Model, settings: BenchSettings) -> None:
        """Prepare requests for a model.

        Raises:
            FailedPreconditionError: the model can't be used now.
            InvalidArgumentError: its inputs are of a type for which no random ones can be made.
        """
        if model.state != "ready":
            raise FailedPreconditionError(f"model {model.name} is {model.state}: {model.error or 'try again later'}")
        generator = np.random.default_rng([settings.seed, 0])
        options = pb.AdaptOptions(steps=settings.steps)
        self._adapts: list[bytes] = []
        self._adapt_predicts: list[bytes] = []
        self._predicts: list[bytes] = []
        while len(self._adapts) < VARIANTS and self._size() < MEMORY:
            support, ways, count = _support(model, settings, generator)
            query = _examples(model, settings.queries, generator)
            both = pb.AdaptPredictRequest(model=model.name, support=support, query=query, options=options)
            self._adapts.append(pb.AdaptRequest(model=model.name, support=support, options=options).SerializeToString())
            self._predicts.append(pb.PredictRequest(query=query).SerializeToString())
            self._adapt_predicts.append(both.SerializeToString())
        self.size = TaskSize(ways, count, settings.queries, len(self._adapt_predicts[0]))

    def adapt(self, variant: int) -> bytes:
        """An Adapt to be measured; its adaptation lives for `MEASURED_LIFE`."""
        rest = pb.AdaptRequest(
            options=pb.AdaptOptions(time_to_live=MEASURED_LIFE), request_id=new_request_id()
        ).SerializeToString()
        return self._adapts[variant % len(self._adapts)] + rest

    def adapt_live(self, slot: int, request_id: str) -> bytes:
        """An Adapt that makes live adaptation `slot`, which lives as long as the server lets it."""
        return self._adapts[slot % len(self._adapts)] + pb.AdaptRequest(request_id=request_id).SerializeToString()

    def predict(self, variant: int, adaptation_id: str) -> bytes:
        """A Predict of one adaptation."""
        rest = pb.PredictRequest(adaptation_id=adaptation_id).SerializeToString()
        return self._predicts[variant % len(self._predicts)] + rest

    def adapt_predict(self, variant: int) -> bytes:
        """An AdaptPredict that keeps nothing."""
        return self._adapt_predicts[variant % len(self._adapt_predicts)]

    def _size(self) -> int:
        return 2 * sum(map(len, self._adapt_predicts))


def _support(model: Model, settings: BenchSettings, generator: np.random.Generator) -> tuple[pb.Support, int, int]:
    """A support set, and its numbers of classes and examples."""
    limits = model.limits
    if model.task_kind == "regression":
        count = settings.shots or limits.trained_shots or REGRESSION_EXAMPLES
        inputs = _examples(model, count, generator)
        targets = generator.normal(size=(count, model.target_size)).astype(np.float32)
        return pb.Support(inputs=inputs, targets=encode_tensor(targets)), 0, count
    ways = settings.ways or limits.trained_ways or min(DEFAULT_WAYS, limits.max_ways)
    shots = settings.shots or limits.trained_shots or DEFAULT_SHOTS
    labels = [f"class {way}" for way in range(ways)] * shots
    inputs = _examples(model, len(labels), generator)
    return pb.Support(inputs=inputs, labels=pb.Labels(values=labels)), ways, len(labels)


def _examples(model: Model, count: int, generator: np.random.Generator) -> Inputs:
    """Texts of as many words as a question has, noise of the length that the model hears, or a tensor.

    The tensor is [count, *input shape], of the model's own element type.
    """
    if model.input_kind == "text":
        sentences = [" ".join(generator.choice(WORDS, generator.integers(5, 20))) for _ in range(count)]
        return Inputs(texts=Texts(values=sentences))
    shape = (count, *model.input_shape)
    if model.input_kind == "audio":
        noise = (NOISE_LEVEL * generator.standard_normal(shape)).astype("<f4").clip(-1, 1)
        values = [Waveform(samples=each.tobytes(), sample_rate=model.sample_rate) for each in noise]
        return Inputs(waveforms=Waveforms(values=values))
    if model.input_data_type == "uint8":
        return Inputs(tensor=encode_tensor(generator.integers(0, 256, shape, dtype=np.uint8)))
    if model.input_data_type.startswith("float"):
        return Inputs(tensor=encode_tensor(generator.normal(size=shape).astype(model.input_data_type)))
    raise InvalidArgumentError(
        f"model {model.name} takes {model.input_data_type} inputs, for which there are no random ones"
    )
