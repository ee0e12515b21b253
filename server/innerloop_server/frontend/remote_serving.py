"""Answers callers of a front end by asking the engine process."""

from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from innerloop_server.domain.adaptations import Adaptation, KeepOptions
from innerloop_server.domain.callers import Caller
from innerloop_server.domain.deadline import Deadline
from innerloop_server.domain.errors import (
    AdaptationEvictedError,
    AdaptationNotFoundError,
    ModelLoadingError,
    ModelRetiredError,
)
from innerloop_server.domain.examples import ListedExamples
from innerloop_server.domain.migrations import Migration
from innerloop_server.domain.model_versions import ModelVersions, WantedAlias, find_version, split_reference
from innerloop_server.domain.models import ServedModel
from innerloop_server.domain.portable import PortableAdaptation
from innerloop_server.domain.results import AdaptPredictResult, AdaptResult, PredictResult
from innerloop_server.domain.tasks import AdaptTask, Array, PredictTask
from innerloop_server.domain.updates import UpdateResult, UpdateTask
from innerloop_server.frontend import messages
from innerloop_server.frontend.engine_client import EngineClient, Parcel, read_answers
from innerloop_server.frontend.known_adaptations import Known, KnownAdaptations
from innerloop_server.ipc.allocator import aligned
from innerloop_server.serving.interface import Serving

T = TypeVar("T")

_adapt_result = msgspec.msgpack.Decoder(AdaptResult)
_update_result = msgspec.msgpack.Decoder(UpdateResult)
_examples = msgspec.msgpack.Decoder(ListedExamples)
_portable = msgspec.msgpack.Decoder(PortableAdaptation)
_prediction = msgspec.msgpack.Decoder(messages.SentPrediction)
_adaptation = msgspec.msgpack.Decoder(Adaptation)
_adaptations = msgspec.msgpack.Decoder(list[Adaptation])
_versions = msgspec.msgpack.Decoder(ModelVersions)
_models = msgspec.msgpack.Decoder(list[ModelVersions])
_served = msgspec.msgpack.Decoder(ServedModel)
_migration = msgspec.msgpack.Decoder(Migration)
_nothing = msgspec.msgpack.Decoder(None)

FLOAT_BYTES = 4


class RemoteServing(Serving):
    """Models and adaptations of another process.

    It remembers models, and those facts of adaptations that never change, so that most requests cross to the engine
    process once. That process refuses a request that was decoded for a model or an adaptation that is gone.

    Args:
        engine: the engine process.
    """

    def __init__(self, engine: EngineClient) -> None:
        self._engine = engine
        self._models: dict[str, ModelVersions] = {}
        self._known = KnownAdaptations()

    def model_changed(self, model: ModelVersions) -> None:
        """Remember a model."""
        self._models[model.name] = model

    def model_removed(self, name: str) -> None:
        """Forget a model."""
        self._models.pop(name, None)

    async def model(self, caller: Caller, reference: str) -> ServedModel:
        """The model that a name, or NAME@VERSION, means for a caller."""
        name, selector = split_reference(reference)
        # News of a model that another front end has just been asked to load may still be on its way.
        known = self._models.get(name) or await self.versions(name)
        return known.select(selector, caller.account).served

    async def model_of(self, caller: Caller, adaptation_id: str) -> ServedModel:
        """The model of the caller's adaptation."""
        return (await self._know(caller, adaptation_id)).model

    async def adapt(
        self, caller: Caller, task: AdaptTask, keep: KeepOptions, deadline: Deadline, *, diagnose: bool = False
    ) -> AdaptResult:
        """Adapt a model and keep the result."""
        parcel = await self._engine.pack(_arrays(task))
        operation = messages.Adapt(caller, _sent(task, parcel), keep, diagnose)
        result = await self._engine.ask_about(parcel, operation, lambda sent, _: _adapt_result.decode(sent), deadline)
        self._remember(caller, result.adaptation, task.model)
        return result

    async def predict(self, caller: Caller, task: PredictTask, deadline: Deadline) -> PredictResult:
        """Answer queries with an adaptation."""
        known = await self._know(caller, task.adaptation_id)
        parcel = await self._engine.pack({"query": task.query}, _answer_bytes(task.model, known.ways, len(task.query)))
        operation = messages.Predict(
            caller, task.model.description.input_format, task.adaptation_id, parcel.arrays["query"], parcel.room
        )
        try:
            return await self._engine.ask_about(parcel, operation, _read_predicted, deadline)
        except (AdaptationNotFoundError, AdaptationEvictedError, ModelLoadingError, ModelRetiredError):
            self._known.forget(caller, task.adaptation_id)
            raise

    async def adapt_predict(
        self, caller: Caller, task: AdaptTask, query: Array, keep: KeepOptions | None, deadline: Deadline
    ) -> AdaptPredictResult:
        """Adapt a model and answer queries with the result."""
        parcel = await self._engine.pack(
            {**_arrays(task), "query": query}, _answer_bytes(task.model, task.support.ways, len(query))
        )
        operation = messages.AdaptPredict(caller, _sent(task, parcel), parcel.arrays["query"], keep, parcel.room)
        result = await self._engine.ask_about(parcel, operation, _read_adapt_predicted, deadline)
        if keep is not None and result.adaptation is not None:
            self._remember(caller, result.adaptation, task.model)
        return result

    async def update(self, caller: Caller, task: UpdateTask, deadline: Deadline) -> UpdateResult:
        """Change the examples of an adaptation, and have it learn from those that it has then."""
        update = task.update
        arrays = {"examples": update.x, "targets": update.targets, "new targets": update.new_targets}
        parcel = await self._engine.pack(arrays)
        operation = messages.Update(
            caller,
            task.model.description.input_format,
            task.adaptation_id,
            update.edits,
            parcel.arrays["examples"],
            parcel.arrays["targets"],
            parcel.arrays["new targets"],
            task.options,
        )
        self._known.forget(caller, task.adaptation_id)  # its classes, and perhaps its version, are others then
        return await self._engine.ask_about(parcel, operation, lambda sent, _: _update_result.decode(sent), deadline)

    async def examples(
        self, caller: Caller, adaptation_id: str, deadline: Deadline, *, diagnose: bool = False
    ) -> ListedExamples:
        """The examples of an adaptation, without their inputs."""
        operation = messages.ListExamples(caller, adaptation_id, diagnose)
        return await self._engine.ask(operation, _examples.decode, deadline)

    async def download(self, caller: Caller, adaptation_id: str, deadline: Deadline) -> PortableAdaptation:
        """The caller's adaptation as files that answer without the server."""
        return await self._engine.ask(messages.Download(caller, adaptation_id), _portable.decode, deadline)

    async def look(self, caller: Caller, adaptation_id: str) -> Adaptation:
        """The caller's adaptation."""
        return await self._engine.ask(messages.Look(caller, adaptation_id), _adaptation.decode)

    async def adaptations(self, caller: Caller, model: str, before_ns: int | None, limit: int) -> list[Adaptation]:
        """The caller's adaptations, newest first."""
        return await self._engine.ask(messages.ListAdaptations(caller, model, before_ns, limit), _adaptations.decode)

    async def delete(self, caller: Caller, adaptation_id: str) -> Adaptation:
        """Forget the caller's adaptation."""
        self._known.forget(caller, adaptation_id)
        return await self._engine.ask(messages.Delete(caller, adaptation_id), _adaptation.decode)

    async def models(self) -> list[ModelVersions]:
        """All models by name."""
        return await self._engine.ask(messages.ListModels(), _models.decode)

    async def versions(self, name: str) -> ModelVersions:
        """One model."""
        return await self._engine.ask(messages.GetVersions(name), _versions.decode)

    async def load(self, reference: str) -> ModelVersions:
        """Load a version of a model, or all of them."""
        return await self._engine.ask(messages.Load(reference), _versions.decode)

    async def unload(self, reference: str) -> None:
        """Unload a version of a model, or all of them."""
        await self._engine.ask(messages.Unload(reference), _nothing.decode)

    async def set_alias(self, name: str, alias: str, wanted: WantedAlias | None) -> ModelVersions:
        """Have an alias of a model point to a version, or take it away."""
        return await self._engine.ask(messages.SetAlias(name, alias, wanted), _versions.decode)

    async def migrate(self, name: str, selector: str) -> Migration:
        """Move a model's adaptations to a version in the background."""
        return await self._engine.ask(messages.Migrate(name, selector), _migration.decode)

    async def migration(self, name: str) -> Migration:
        """How far the latest migration of a model is."""
        return await self._engine.ask(messages.GetMigration(name), _migration.decode)

    async def _know(self, caller: Caller, adaptation_id: str) -> Known:
        known = self._known.get(caller, adaptation_id)
        if known is None:
            adaptation = await self.look(caller, adaptation_id)
            known = self._remember(caller, adaptation, await self._made_by(caller, adaptation))
        return known

    async def _made_by(self, caller: Caller, adaptation: Adaptation) -> ServedModel:
        """The version of a model that made an adaptation, or that is about to make it again."""
        model = self._models.get(adaptation.model)
        found = None if model is None else find_version(model.versions, adaptation.model_version)
        if found is not None and found.description is not None:
            return found.served
        return await self._engine.ask(messages.ModelOf(caller, adaptation.id), _served.decode)

    def _remember(self, caller: Caller, adaptation: Adaptation, model: ServedModel) -> Known:
        known = Known(model, len(adaptation.classes))
        self._known.remember(caller, adaptation.id, known)
        return known


def _arrays(task: AdaptTask) -> dict[str, Array]:
    return {"support.inputs": task.support.x, "support": task.support.y}


def _sent(task: AdaptTask, parcel: Parcel) -> messages.SentTask:
    return messages.SentTask(
        task.model.name,
        task.model.description.digest,
        parcel.arrays["support.inputs"],
        parcel.arrays["support"],
        task.support.ways,
        task.classes,
        task.steps,
        task.steps_chosen,
    )


def _answer_bytes(model: ServedModel, ways: int, queries: int) -> int:
    """Bytes that the answers to some queries take: logits and probabilities, or values."""
    values = queries * model.description.traits.target_size
    return 2 * aligned(queries * ways * FLOAT_BYTES) + aligned(values * FLOAT_BYTES)


def _read_predicted(result: msgspec.Raw, memory: NDArray[np.uint8]) -> PredictResult:
    sent = _prediction.decode(result)
    return PredictResult(read_answers(sent.answers, memory), sent.classes, sent.timings)


def _read_adapt_predicted(result: msgspec.Raw, memory: NDArray[np.uint8]) -> AdaptPredictResult:
    sent = _prediction.decode(result)
    return AdaptPredictResult(read_answers(sent.answers, memory), sent.adaptation, sent.timings)
