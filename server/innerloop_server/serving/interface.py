"""The interface between transports and the server, in domain words.

Nothing here knows of devices, queues or task states, so that the one who answers may be another process.
"""

from abc import ABC, abstractmethod

from innerloop_server.domain.adaptations import Adaptation, KeepOptions
from innerloop_server.domain.callers import Caller
from innerloop_server.domain.deadline import Deadline
from innerloop_server.domain.examples import ListedExamples
from innerloop_server.domain.migrations import Migration
from innerloop_server.domain.model_versions import ModelVersions, WantedAlias
from innerloop_server.domain.models import ServedModel
from innerloop_server.domain.portable import PortableAdaptation
from innerloop_server.domain.results import AdaptPredictResult, AdaptResult, PredictResult
from innerloop_server.domain.tasks import AdaptTask, Array, PredictTask
from innerloop_server.domain.updates import UpdateResult, UpdateTask


class Serving(ABC):
    """Models, adaptations, and what can be computed with them.

    Calls that compute raise OverloadedError or DeadlinePassedError when nothing was computed, and DivergedError when
    the result is not finite. A cancelled call is dropped unless it is being computed already.
    """

    @abstractmethod
    async def model(self, caller: Caller, reference: str) -> ServedModel:
        """The model that a name, or NAME@VERSION, means for a caller, for decoding an Adapt request.

        Raises:
            ModelNotFoundError, ModelLoadingError, ModelFailedError: it can't serve.
        """

    @abstractmethod
    async def model_of(self, caller: Caller, adaptation_id: str) -> ServedModel:
        """The model of the caller's adaptation, for decoding a Predict request.

        May raise what `look` raises. It need not notice that the adaptation is gone: `predict` will.
        """

    @abstractmethod
    async def adapt(
        self, caller: Caller, task: AdaptTask, keep: KeepOptions, deadline: Deadline, *, diagnose: bool = False
    ) -> AdaptResult:
        """Adapt a model and keep the result; a request that was made before gets what it made then.

        With `diagnose`, say too what the examples of a classification tell about each other's labels. Nothing is kept
        if that fails.

        Raises:
            InvalidRequestError: its id was used before for something else.
            AdaptationTooLargeError: the result does not fit into memory at all.
            StoreUnavailableError: the result can't be kept now.
            ModelNotFoundError, ModelLoadingError, ModelFailedError: the model can't serve any more.
        """

    @abstractmethod
    async def predict(self, caller: Caller, task: PredictTask, deadline: Deadline) -> PredictResult:
        """Answer queries with an adaptation, and postpone its expiry.

        Raises what `look` raises, and:
            ModelRetiredError: its model is not loaded any more in the version that made it.
            ModelNotFoundError, ModelLoadingError, ModelFailedError: its model can't serve.
        """

    @abstractmethod
    async def adapt_predict(
        self, caller: Caller, task: AdaptTask, query: Array, keep: KeepOptions | None, deadline: Deadline
    ) -> AdaptPredictResult:
        """Adapt a model and answer queries [Q, *input] with the result, which is kept only if `keep` says how.

        Raises what `adapt` raises.
        """

    @abstractmethod
    async def update(self, caller: Caller, task: UpdateTask, deadline: Deadline) -> UpdateResult:
        """Change the examples of the caller's adaptation, and have it learn from those that it has then.

        All of it happens or nothing; a request that was carried out before changes nothing more. Raises what `predict`
        raises, and:
            InvalidRequestError: it names what is not there, leaves what no adaptation of the model can be, or its id
                was used before for something else.
            RevisionChangedError: the adaptation has another revision than the caller expects.
            ExamplesNotKeptError: that takes examples which the server has not kept.
            AdaptationTooLargeError: the result does not fit into memory at all.
        """

    @abstractmethod
    async def examples(
        self, caller: Caller, adaptation_id: str, deadline: Deadline, *, diagnose: bool = False
    ) -> ListedExamples:
        """The examples of the caller's adaptation.

        With `diagnose`, they are listed with what they say about each other's labels.

        Raises what `look` raises, and:
            ExamplesNotKeptError: the server has not kept them.
            InvalidRequestError: they can't be diagnosed, since they are too many or have no labels.
            ModelRetiredError, ModelNotFoundError, ModelLoadingError, ModelFailedError: no model can diagnose them.
        """

    @abstractmethod
    async def download(self, caller: Caller, adaptation_id: str, deadline: Deadline) -> PortableAdaptation:
        """The caller's adaptation as files that answer without the server; this counts as use.

        Raises what `predict` raises, and NotPortableError: its model has no graph that answers alone.
        """

    @abstractmethod
    async def look(self, caller: Caller, adaptation_id: str) -> Adaptation:
        """The caller's adaptation; looking does not count as use.

        Raises:
            AdaptationNotFoundError: the caller never had it, or deleted it.
            AdaptationEvictedError: it expired or gave way.
            AdaptationDamagedError: what was kept of it is damaged.
            StoreUnavailableError: what keeps it can't be asked now.
        """

    @abstractmethod
    async def adaptations(self, caller: Caller, model: str, before_ns: int | None, limit: int) -> list[Adaptation]:
        """The caller's adaptations, newest first.

        Args:
            caller: whose.
            model: only those of this model, unless empty.
            before_ns: only those created before.
            limit: at most this many.
        """

    @abstractmethod
    async def delete(self, caller: Caller, adaptation_id: str) -> Adaptation:
        """Forget the caller's adaptation; returns what it was. Raises what `look` raises."""

    @abstractmethod
    async def models(self) -> list[ModelVersions]:
        """All models by name, whatever the state of their versions."""

    @abstractmethod
    async def versions(self, name: str) -> ModelVersions:
        """One model, whatever the state of its versions.

        Raises:
            ModelNotFoundError: there is none of that name.
        """

    @abstractmethod
    async def load(self, reference: str) -> ModelVersions:
        """Load a version of a model, or all of them, unless they are loaded already, and read its aliases.

        Raises:
            ModelNotFoundError: there is no such bundle.
            ModelFailedError: the bundle was refused; what served before goes on.
        """

    @abstractmethod
    async def unload(self, reference: str) -> None:
        """Unload a version of a model, or all of them.

        Their adaptations stay if there is a store that outlives their task states.

        Raises:
            ModelNotFoundError, ModelLoadingError: there is nothing to unload, or not yet.
        """

    @abstractmethod
    async def set_alias(self, name: str, alias: str, wanted: WantedAlias | None) -> ModelVersions:
        """Have an alias of a model point to a version, or with None take it away.

        Raises:
            ModelNotFoundError: there is no such model or version.
            InvalidRequestError: the alias makes no sense, or can't be kept.
        """

    @abstractmethod
    async def migrate(self, name: str, selector: str) -> Migration:
        """Move a model's adaptations to a version in the background, by default to `stable`, and say how far that is.

        Raises:
            ModelNotFoundError, ModelLoadingError, ModelFailedError: the version does not serve.
        """

    @abstractmethod
    async def migration(self, name: str) -> Migration:
        """How far the latest migration of a model is.

        Raises:
            ModelNotFoundError: there is no such model.
        """
