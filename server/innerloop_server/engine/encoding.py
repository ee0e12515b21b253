"""Frozen encoders in front of models, whichever engine computes what follows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from innerloop_learner.encoders import EncoderError, FrozenEncoder, join_packed, open_encoder
from innerloop_learner.encoders.session import Computing
from innerloop_learner.encoders.spec import Form
from innerloop_learner.manifest import BundleError, read_files, read_manifest
from innerloop_learner.media import AudioSupportError, require_audio
from innerloop_learner.signatures import TrustedKeys
from innerloop_server.domain.answers import Answers
from innerloop_server.domain.models import InputKind, ModelDescription
from innerloop_server.domain.tasks import Array, SupportSet
from innerloop_server.engine.graph_file import ENCODED
from innerloop_server.engine.interface import (
    AdaptedTask,
    Batch,
    BatchResult,
    Engine,
    ExtendBatch,
    LeaveOutBatch,
    LoadedModel,
    LoadError,
    NoState,
    PredictBatch,
    TaskState,
    Worker,
)

INPUT_KINDS: Mapping[Form, InputKind] = {"texts": "text", "images": "tensor", "audio": "audio"}
"""Kinds of examples, by the form that an encoder takes."""


class EncodingEngine(Engine):
    """An engine whose models may have encoders.

    Args:
        engine: computes what follows the encoders.
        computing: where and how encoders compute.
    """

    def __init__(self, engine: Engine, computing: Computing) -> None:
        self._engine = engine
        self._computing = computing
        self.lanes, self.threads = engine.lanes, engine.threads
        self.largest_batch, self.compiles = engine.largest_batch, engine.compiles

    def start_worker(self) -> Worker | None:
        """See Engine.start_worker."""
        return self._engine.start_worker()

    def load(self, name: str, path: Path, keys: TrustedKeys | None = None) -> LoadedModel:
        """See Engine.load."""
        model = self._engine.load(name, path, keys)
        try:
            manifest = read_manifest(path, keys)
            if manifest.digest != model.description.digest:
                raise LoadError(f"{path.name}: was replaced while it was loaded; load it again")
            if manifest.encoder is None:
                return model
            if manifest.encoder.input == "audio":
                require_audio()
            encoder = open_encoder(manifest.encoder, read_files(path, manifest), self._computing)
        except BundleError as error:
            raise LoadError(str(error)) from error
        except EncoderError as error:
            raise LoadError(f"{path.name}: {error.message}") from error
        except AudioSupportError as error:
            raise LoadError(f"{path.name}: {error}") from error
        return EncodedModel(model, encoder)

    def memory(self) -> Mapping[tuple[str, str], int]:
        """See Engine.memory."""
        return self._engine.memory()


class EncodedModel(LoadedModel):
    """A model behind an encoder, which computes all inputs of a batch of tasks in one go."""

    def __init__(self, model: LoadedModel, encoder: FrozenEncoder) -> None:
        spec = encoder.spec
        self.name = model.name
        self.description = replace(
            model.description,
            input_shape=spec.shape,
            input_dtype="float32" if spec.input == "audio" else "uint8",
            input_kind=INPUT_KINDS[spec.input],
            sample_rate=spec.rate,
        )
        self.computed_by_workers, self.states_on_host = model.computed_by_workers, model.states_on_host
        self.calibration, self.graph = model.calibration, ENCODED
        self._model = model
        self._encoder = encoder
        self.encoder = _EncoderAlone(self.name, self.description, encoder)
        self._sent: WeakKeyDictionary[Worker, float] = WeakKeyDictionary()  # encoder's seconds of the batch that it has

    @property
    def head(self) -> LoadedModel:
        """See LoadedModel.head."""
        return self._model

    def prepare(self) -> None:
        """See LoadedModel.prepare; the encoder was tried out when it was opened."""
        self._model.prepare()

    def compile(self) -> None:
        """See LoadedModel.compile."""
        self._model.compile()

    def adapt(self, tasks: Sequence[SupportSet], steps: int, width: int, *, alone: bool = True) -> list[AdaptedTask]:
        """See LoadedModel.adapt."""
        return self._model.adapt(self._encoded(tasks), steps, width, alone=alone)

    def extend(
        self, states: Sequence[TaskState], tasks: Sequence[SupportSet], steps: int, width: int, *, alone: bool = True
    ) -> list[AdaptedTask]:
        """See LoadedModel.extend."""
        return self._model.extend(states, self._encoded(tasks), steps, width, alone=alone)

    def predict(self, states: Sequence[TaskState], queries: Sequence[Array], *, alone: bool = True) -> list[Answers]:
        """See LoadedModel.predict."""
        return self._model.predict(states, self._encode(queries), alone=alone)

    def compute(self, batch: Batch, *, alone: bool) -> BatchResult:
        """See LoadedModel.compute; the encoder's time is measured apart from what follows."""
        encoded, seconds = self._encode_batch(batch)
        return replace(self._model.compute(encoded, alone=alone), encoder_seconds=seconds)

    def export_state(self, state: TaskState) -> bytes:
        """See LoadedModel.export_state."""
        return self._model.export_state(state)

    def import_state(self, content: bytes) -> TaskState:
        """See LoadedModel.import_state."""
        return self._model.import_state(content)

    def state_tensors(self, state: TaskState) -> dict[str, Array]:
        """See LoadedModel.state_tensors."""
        return self._model.state_tensors(state)

    def prefetch(self, state: TaskState) -> None:
        """See LoadedModel.prefetch."""
        self._model.prefetch(state)

    def bytes_to_copy(self, batch: Batch, worker: Worker) -> float:
        """See LoadedModel.bytes_to_copy."""
        del batch, worker
        return math.inf  # `send` encodes

    def send(self, batch: Batch, worker: Worker) -> None:
        """See LoadedModel.send: the inputs are encoded here, and the worker computes what follows."""
        encoded, self._sent[worker] = self._encode_batch(batch)
        self._model.send(encoded, worker)

    def take(self, batch: Batch, reply: Any, worker: Worker) -> BatchResult:
        """See LoadedModel.take."""
        return replace(self._model.take(batch, reply, worker), encoder_seconds=self._sent[worker])

    def _encode_batch(self, batch: Batch) -> tuple[Batch, float]:
        """The batch with features in place of its inputs, and the seconds that these took."""
        started = perf_counter()
        if isinstance(batch, PredictBatch):
            encoded: Batch = replace(batch, queries=self._encode(batch.queries))
        elif isinstance(batch, (ExtendBatch, LeaveOutBatch)):
            encoded = replace(batch, tasks=self._encoded(batch.tasks))
        else:
            asked = [query for group in batch.groups for query in group.queries]
            features = iter(self._encode([*(task.x for task in batch.tasks), *asked]))
            tasks = [replace(task, x=next(features)) for task in batch.tasks]
            groups = [replace(group, queries=[next(features) for _ in group.queries]) for group in batch.groups]
            encoded = replace(batch, tasks=tasks, groups=groups)
        return encoded, perf_counter() - started

    def _encoded(self, tasks: Sequence[SupportSet]) -> list[SupportSet]:
        """Tasks with features in place of their inputs."""
        features = self._encode([task.x for task in tasks])
        return [replace(task, x=x) for task, x in zip(tasks, features, strict=True)]

    def _encode(self, inputs: Sequence[Array]) -> list[Array]:
        return _features(self._encoder, inputs)


class _EncoderAlone(LoadedModel):
    """An encoder as a model that learns nothing: its answers are the features of the queries."""

    def __init__(self, name: str, description: ModelDescription, encoder: FrozenEncoder) -> None:
        self.name, self.description = name, description
        self._encoder = encoder

    def prepare(self) -> None:
        """See LoadedModel.prepare."""

    def compile(self) -> None:
        """See LoadedModel.compile."""

    def adapt(self, tasks: Sequence[SupportSet], steps: int, width: int, *, alone: bool = True) -> list[AdaptedTask]:
        """See LoadedModel.adapt."""
        del steps, width, alone
        return [AdaptedTask(NoState(), ()) for _ in tasks]

    def predict(self, states: Sequence[TaskState], queries: Sequence[Array], *, alone: bool = True) -> list[Answers]:
        """See LoadedModel.predict."""
        del states, alone
        return [Answers(values=features) for features in _features(self._encoder, queries)]

    def compute(self, batch: Batch, *, alone: bool) -> BatchResult:
        """See LoadedModel.compute; all of the time is the encoder's."""
        result = super().compute(batch, alone=alone)
        return replace(result, seconds={}, encoder_seconds=sum(result.seconds.values()))

    def export_state(self, state: TaskState) -> bytes:
        """See LoadedModel.export_state."""
        del state
        return b""

    def import_state(self, content: bytes) -> TaskState:
        """See LoadedModel.import_state."""
        del content
        return NoState()


def _features(encoder: FrozenEncoder, inputs: Sequence[Array]) -> list[Array]:
    """Features of each task's inputs, computed in one go."""
    together = join_packed(inputs) if encoder.spec.input == "texts" else np.concatenate(inputs)
    ends = np.cumsum([len(each) for each in inputs])
    return np.split(encoder.encode(together), ends[:-1])
