"""grpc.health.v1: of the server, of each service, and of each model."""

from grpc_health.v1.health import aio
from grpc_health.v1.health_pb2 import HealthCheckResponse

from innerloop_server.domain.model_versions import SEPARATOR, ModelVersions
from innerloop_server.domain.models import ModelState

SERVER = ""
ADAPTATION_SERVICE = "innerloop.v1.AdaptationService"
MODEL_SERVICE = "innerloop.v1.ModelService"
STORE = "innerloop.v1.store"
"""The name by which the health service is asked about the store of adaptations."""


def model_health_name(model: str) -> str:
    """The name by which the health service is asked about a model, or about NAME@FOLDER, one version of it."""
    return f"innerloop.v1.models/{model}"


class Health:
    """Keeps the standard health service up to date; listens to the model repository.

    ModelService serves from the start. The server and AdaptationService serve once every model of the folder has been
    loaded or refused, unless there are models and none of them is ready. The store has a name of its own: while it is
    away, adaptations that are in memory go on answering, and a proxy that took the server out would end that. Nothing
    serves while the process that computes does not answer.
    """

    def __init__(self) -> None:
        self.servicer = aio.HealthServicer()
        self._models: dict[str, ModelVersions] = {}
        self._loaded = False
        self._store_up = self._engine_answers = True
        self._serving: dict[str, bool] = {}  # by name, if only the engine answers

    async def start(self) -> None:
        """The server listens, whether its models are loaded or not."""
        await self._update_server()
        await self._set(MODEL_SERVICE, serving=True)
        await self._set(STORE, serving=self._store_up)

    async def models_loaded(self) -> None:
        """Every model of the folder was loaded or refused."""
        self._loaded = True
        await self._update_server()

    async def store_changed(self, *, up: bool) -> None:
        """The store of adaptations went away or came back."""
        self._store_up = up
        await self._set(STORE, serving=up)

    async def engine_changed(self, *, answers: bool) -> None:
        """The process that computes does not answer any more, or does again."""
        self._engine_answers = answers
        for service, serving in self._serving.items():
            await self._set(service, serving=serving)

    async def stop(self) -> None:
        """Say from now on that nothing serves."""
        await self.servicer.enter_graceful_shutdown()

    async def model_changed(self, model: ModelVersions) -> None:
        """A model serves when the version is ready that its bare name stands for, a version when it is ready."""
        before = self._models.get(model.name)
        self._models[model.name] = model
        serving = _serving(model)
        gone = dict.fromkeys(() if before is None else _serving(before).keys() - serving.keys(), False)
        for name, serves in (serving | gone).items():
            await self._set(model_health_name(name), serving=serves)
        await self._update_server()

    async def model_removed(self, name: str) -> None:
        """An unloaded model does not serve."""
        before = self._models.pop(name, None)
        for each in () if before is None else _serving(before):
            await self._set(model_health_name(each), serving=False)
        await self._update_server()

    async def _update_server(self) -> None:
        refused = bool(self._models) and not any(_serving(model)[model.name] for model in self._models.values())
        for service in (SERVER, ADAPTATION_SERVICE):
            await self._set(service, serving=self._loaded and not refused)

    async def _set(self, service: str, *, serving: bool) -> None:
        self._serving[service] = serving
        status = HealthCheckResponse.NOT_SERVING
        if serving and self._engine_answers:
            status = HealthCheckResponse.SERVING
        await self.servicer.set(service, status)


def _serving(model: ModelVersions) -> dict[str, bool]:
    """Whether a model serves, and each of its versions that has a folder of its own."""
    versions = {f"{model.name}{SEPARATOR}{entry.folder}": entry for entry in model.versions if entry.folder}
    return {name: entry.state is ModelState.READY for name, entry in {model.name: model.stable, **versions}.items()}
