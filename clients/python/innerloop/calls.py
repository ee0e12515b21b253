"""Every remote call as data: which method, what to send, how to read the answer. The clients only carry them out."""

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any, Generic, Protocol, TypeVar

from google.protobuf.message import Message

from innerloop.adaptation_info import AdaptationInfo
from innerloop.changes import Change, Example
from innerloop.checks import name_of
from innerloop.diagnosis import Diagnosis
from innerloop.errors import InvalidArgumentError
from innerloop.examples import EncodedExamples, Names
from innerloop.incoming_folder import IncomingFolder
from innerloop.models import Migration, Model
from innerloop.predictions import Predictions
from innerloop.recipe import Recipe
from innerloop.status import REQUEST_ID_KEY
from innerloop.tensors import decode_tensor
from innerloop.v1 import adaptation_pb2 as adaptations
from innerloop.v1 import model_pb2 as models
from innerloop.wanted import Wanted

T = TypeVar("T")


def new_request_id() -> str:
    """An id that names one call, retries included."""
    return uuid.uuid4().hex


def call_metadata(request_id: str) -> tuple[tuple[str, str], ...]:
    """Metadata of a call of this id."""
    return ((REQUEST_ID_KEY, request_id),)


_PATH_OF_EXAMPLE = re.compile(
    r"\b((?:support|add)\.inputs|query)"
    r"\.(?:(?:images|audio_files)\.files|(?:texts|waveforms)\.values|tensor(?:\.data)?)\[(\d+)\]"
)
_ARRAY_TO_MODEL_OF_AUDIO = re.compile(r"\b(?:(?:support|add)\.inputs|query)\.tensor: this model takes audio\b[^;]*")


def explained(error: InvalidArgumentError, support: Names, query: Names) -> InvalidArgumentError:
    """A refusal, with what the caller calls examples in place of their paths in the request.

    Example:
        >>> refusal = InvalidArgumentError("query.images.files[1] is damaged")
        >>> explained(refusal, Names("support example"), Names("query", {1: "cat.png"})).message
        "'cat.png' is damaged"
        >>> refusal = InvalidArgumentError("query.tensor: this model takes audio: files, or samples with their rate")
        >>> explained(refusal, Names("support example"), Names("query")).message
        'this model takes audio: give the rate of arrays of samples, rate=16000 for example'
    """

    def name(path: re.Match[str]) -> str:
        return (query if path[1] == "query" else support)[int(path[2])]

    error.message = _PATH_OF_EXAMPLE.sub(name, _whole_message(error))
    error.message = _ARRAY_TO_MODEL_OF_AUDIO.sub(
        "this model takes audio: give the rate of arrays of samples, rate=16000 for example", error.message
    )
    error.args = (error.message,)
    return error


def _whole_message(error: InvalidArgumentError) -> str:
    """The server's message with all violations: the message itself lists them, but is cut where it gets long."""
    violations = [f"{violation.field}: {violation.description}" for violation in error.violations]
    if (whole := "; ".join(violations)).startswith(error.message):
        return whole
    unsaid = [
        said for said, one in zip(violations, error.violations, strict=True) if one.description not in error.message
    ]
    return "; ".join([error.message, *unsaid])


class Receiver(Protocol):
    """Takes the messages of a stream."""

    def take(self, message: Any) -> None:
        """Take the next one; what this raises ends the call."""


@dataclass(frozen=True)
class Call(Generic[T]):
    """One remote call.

    Attributes:
        method: its name in AdaptationService or ModelService, which share none.
        request: the message to send.
        read: turns the response into what the caller gets.
        safe: whether it may be repeated when nobody knows whether the server has carried it out.
        receive: makes what takes the messages of an attempt, if the answer is a stream; `read` is then given that.
        request_id: names it in the server's logs, and in errors.
        support: what its support examples are called.
        query: what its queries are called.
    """

    method: str
    request: Message
    read: Callable[[Any], T]
    safe: bool = True
    receive: Callable[[], Receiver] | None = None
    request_id: str = field(default_factory=new_request_id)
    support: Names = field(default_factory=lambda: Names("support example"))
    query: Names = field(default_factory=lambda: Names("query"))

    def explained(self, error: InvalidArgumentError) -> InvalidArgumentError:
        """The server's refusal, with what the caller calls the examples in place of their paths in the request."""
        return explained(error, self.support, self.query)


def adapt(recipe: Recipe, *, diagnose: bool = False) -> Call[AdaptationInfo]:
    """Make an adaptation; every call of this function asks for a new one, every attempt of the call for the same."""
    request_id = new_request_id()
    request = adaptations.AdaptRequest(
        model=recipe.model, support=recipe.support, options=recipe.options, request_id=request_id, diagnose=diagnose
    )

    def read(response: adaptations.AdaptResponse) -> AdaptationInfo:
        info = AdaptationInfo.from_message(response.adaptation, recipe.labels, response.timings)
        if not response.HasField("diagnosis"):
            return info
        ids = range(len(response.diagnosis.doubts))
        return replace(info, diagnosis=Diagnosis.from_message(response.diagnosis, info.classes, ids))

    return Call(
        "Adapt",
        request,
        read,
        request_id=request_id,
        support=recipe.names,
    )


def predict(
    adaptation_id: str, query: EncodedExamples, *, wanted: Wanted, labels: Mapping[str, Any]
) -> Call[Predictions]:
    """Ask an adaptation."""
    request = adaptations.PredictRequest(adaptation_id=adaptation_id, query=query.message, **wanted._asdict())
    return Call(
        "Predict",
        request,
        lambda response: Predictions(response.predictions, labels, response.timings),
        query=query.names,
    )


def adapt_predict(recipe: Recipe, query: EncodedExamples, *, wanted: Wanted) -> Call[Predictions]:
    """Adapt and ask in one round trip, keeping nothing."""
    request = adaptations.AdaptPredictRequest(
        model=recipe.model,
        support=recipe.support,
        query=query.message,
        options=recipe.options,
        **wanted._asdict(),
    )
    return Call(
        "AdaptPredict",
        request,
        lambda response: Predictions(response.predictions, recipe.labels, response.timings),
        support=recipe.names,
        query=query.names,
    )


def adapt_again(recipe: Recipe, query: EncodedExamples, *, wanted: Wanted) -> Call[tuple[AdaptationInfo, Predictions]]:
    """Make an adaptation and ask it in one round trip, so that nothing can drop it in between."""
    request_id = new_request_id()
    request = adaptations.AdaptPredictRequest(
        model=recipe.model,
        support=recipe.support,
        query=query.message,
        options=recipe.options,
        **wanted._asdict(),
        keep=True,
        request_id=request_id,
    )

    def read(response: adaptations.AdaptPredictResponse) -> tuple[AdaptationInfo, Predictions]:
        info = AdaptationInfo.from_message(response.adaptation, recipe.labels, response.timings)
        return info, Predictions(response.predictions, recipe.labels, response.timings)

    return Call("AdaptPredict", request, read, request_id=request_id, support=recipe.names, query=query.names)


@dataclass(frozen=True)
class Updated:
    """An adaptation after an update, and the server's ids of the examples that were added, if it keeps them."""

    info: AdaptationInfo
    example_ids: tuple[int, ...]


def update(adaptation_id: str, change: Change, expected_revision: int, labels: Mapping[str, Any]) -> Call[Updated]:
    """Change the examples of an adaptation."""
    request_id = new_request_id()
    request = change.to_message(name_of("adaptation", adaptation_id), expected_revision, request_id)
    return _update(request, labels, change.names)


def update_all(adaptation_id: str, recipe: Recipe, expected_revision: int) -> Call[Updated]:
    """Give an adaptation whose examples the server has not kept all that it shall have."""
    request = adaptations.UpdateAdaptationRequest(
        adaptation_id=adaptation_id,
        support=recipe.support,
        expected_revision=expected_revision,
        request_id=new_request_id(),
    )
    return _update(request, recipe.labels, recipe.names)


def _update(request: adaptations.UpdateAdaptationRequest, labels: Mapping[str, Any], names: Names) -> Call[Updated]:
    def read(response: adaptations.UpdateAdaptationResponse) -> Updated:
        info = AdaptationInfo.from_message(response.adaptation, labels, response.timings)
        return Updated(info, tuple(response.example_ids))

    return Call("UpdateAdaptation", request, read, request_id=request.request_id, support=names)


def list_examples(adaptation_id: str, labels: Mapping[str, Any]) -> Call[list[Example]]:
    """List the examples of an adaptation."""

    def read(response: adaptations.ListExamplesResponse) -> list[Example]:
        ids = response.example_ids
        if response.HasField("targets"):
            return [Example(*each) for each in zip(ids, repeat(None), decode_tensor(response.targets))]
        names = response.labels.values
        return [Example(each, labels.get(name, name), None) for each, name in zip(ids, names, strict=True)]

    request = adaptations.ListExamplesRequest(adaptation_id=name_of("adaptation", adaptation_id))
    return Call("ListExamples", request, read)


def diagnose(adaptation_id: str, labels: Mapping[str, Any]) -> Call[Diagnosis]:
    """Find out what the examples of an adaptation say about each other's labels."""

    def read(response: adaptations.ListExamplesResponse) -> Diagnosis:
        classes = [labels.get(name, name) for name in response.classes]
        return Diagnosis.from_message(response.diagnosis, classes, response.example_ids)

    request = adaptations.ListExamplesRequest(adaptation_id=name_of("adaptation", adaptation_id), diagnose=True)
    return Call("ListExamples", request, read)


def get_adaptation(adaptation_id: str) -> Call[AdaptationInfo]:
    """Look an adaptation up."""
    request = adaptations.GetAdaptationRequest(adaptation_id=name_of("adaptation", adaptation_id))
    return Call("GetAdaptation", request, lambda response: AdaptationInfo.from_message(response.adaptation))


@dataclass(frozen=True)
class Page:
    """Some adaptations, and where the next ones begin (empty after the last page)."""

    adaptations: list[AdaptationInfo]
    next_token: str


def list_adaptations(model: str | None, token: str) -> Call[Page]:
    """One page of the caller's adaptations, newest first."""
    request = adaptations.ListAdaptationsRequest(
        model="" if model is None else name_of("model", model), page_token=token
    )
    return Call(
        "ListAdaptations",
        request,
        lambda response: Page(
            [AdaptationInfo.from_message(message) for message in response.adaptations], response.next_page_token
        ),
    )


def download(adaptation_id: str, files: IncomingFolder) -> Call[None]:
    """Have an adaptation written into a folder that is not there yet."""
    request = adaptations.DownloadAdaptationRequest(adaptation_id=name_of("adaptation", adaptation_id))
    return Call("DownloadAdaptation", request, lambda _: files.finish(), receive=files.begin)


def delete_adaptation(adaptation_id: str) -> Call[None]:
    """Forget an adaptation."""
    request = adaptations.DeleteAdaptationRequest(adaptation_id=name_of("adaptation", adaptation_id))
    return Call("DeleteAdaptation", request, lambda _: None)


def list_models() -> Call[list[Model]]:
    """Describe all models."""
    return Call(
        "ListModels",
        models.ListModelsRequest(),
        lambda response: [Model.from_message(message) for message in response.models],
    )


def get_model(name: str) -> Call[Model]:
    """Describe one model."""
    return Call(
        "GetModel",
        models.GetModelRequest(model=name_of("model", name)),
        lambda response: Model.from_message(response.model),
    )


def load_model(name: str) -> Call[Model]:
    """Load the bundles of a model, or of one version of it."""
    return Call(
        "LoadModel",
        models.LoadModelRequest(model=name_of("model", name)),
        lambda response: Model.from_message(response.model),
        safe=False,
    )


def unload_model(name: str) -> Call[None]:
    """Unload a model, or one version of it."""
    return Call("UnloadModel", models.UnloadModelRequest(model=name_of("model", name)), lambda _: None, safe=False)


def set_alias(model: str, alias: str, version: str | None, percent: float) -> Call[Model]:
    """Have an alias point to a version, or with None take it away."""
    if version is not None:
        version = name_of("version", version)
    request = models.SetAliasRequest(
        model=name_of("model", model), alias=name_of("alias", alias), version=version or "", percent=percent
    )
    return Call("SetAlias", request, lambda response: Model.from_message(response.model))


def migrate(model: str, version: str | None) -> Call[Migration]:
    """Begin to move a model's adaptations to a version, or see how far that is."""
    version = "" if version is None else name_of("version", version)
    request = models.MigrateAdaptationsRequest(model=name_of("model", model), version=version)
    return Call("MigrateAdaptations", request, lambda response: Migration.from_message(response.migration))


def get_migration(model: str) -> Call[Migration]:
    """See how far the latest migration of a model is."""
    request = models.GetMigrationRequest(model=name_of("model", model))
    return Call("GetMigration", request, lambda response: Migration.from_message(response.migration))
