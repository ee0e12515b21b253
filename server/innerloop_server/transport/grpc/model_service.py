"""ModelService: what models there are, and loading and unloading them."""

from innerloop.v1 import model_pb2 as pb
from innerloop_server.domain.model_versions import ModelVersions, WantedAlias, split_reference
from innerloop_server.serving.interface import Serving
from innerloop_server.transport.codec.requests import RequestLimits
from innerloop_server.transport.codec.responses import encode_migration, encode_model
from innerloop_server.transport.grpc.calls import Call, Calls
from innerloop_server.transport.grpc.identity import Context


class ModelServicer:
    """Models over gRPC.

    Args:
        serving: whose models.
        calls: runs the RPCs.
        limits: shown with every model.
    """

    def __init__(self, serving: Serving, calls: Calls, limits: RequestLimits) -> None:
        self._serving = serving
        self._calls = calls
        self._limits = limits

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:  # noqa: N802, D102
        return await self._calls.run("ListModels", self._list, request, context)

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:  # noqa: N802, D102
        return await self._calls.run("GetModel", self._get, request, context)

    async def LoadModel(self, request: pb.LoadModelRequest, context: Context) -> pb.LoadModelResponse:  # noqa: N802, D102
        return await self._calls.run("LoadModel", self._load, request, context)

    async def UnloadModel(self, request: pb.UnloadModelRequest, context: Context) -> pb.UnloadModelResponse:  # noqa: N802, D102
        return await self._calls.run("UnloadModel", self._unload, request, context)

    async def SetAlias(self, request: pb.SetAliasRequest, context: Context) -> pb.SetAliasResponse:  # noqa: N802, D102
        return await self._calls.run("SetAlias", self._set_alias, request, context)

    async def MigrateAdaptations(  # noqa: N802, D102
        self, request: pb.MigrateAdaptationsRequest, context: Context
    ) -> pb.MigrateAdaptationsResponse:
        return await self._calls.run("MigrateAdaptations", self._migrate, request, context)

    async def GetMigration(self, request: pb.GetMigrationRequest, context: Context) -> pb.GetMigrationResponse:  # noqa: N802, D102
        return await self._calls.run("GetMigration", self._migration, request, context)

    async def _list(self, request: pb.ListModelsRequest, call: Call) -> pb.ListModelsResponse:
        del request
        models = await self._serving.models()
        return pb.ListModelsResponse(models=[self._encode(model, "", call) for model in models])

    async def _get(self, request: pb.GetModelRequest, call: Call) -> pb.GetModelResponse:
        name, selector = split_reference(request.model)
        model = await self._serving.versions(name)
        call.model = model.name
        return pb.GetModelResponse(model=self._encode(model, selector, call))

    async def _load(self, request: pb.LoadModelRequest, call: Call) -> pb.LoadModelResponse:
        model = await self._serving.load(request.model)
        call.model = model.name
        return pb.LoadModelResponse(model=self._encode(model, split_reference(request.model)[1], call))

    async def _unload(self, request: pb.UnloadModelRequest, call: Call) -> pb.UnloadModelResponse:
        await self._serving.unload(request.model)
        call.model = split_reference(request.model)[0]
        return pb.UnloadModelResponse()

    async def _set_alias(self, request: pb.SetAliasRequest, call: Call) -> pb.SetAliasResponse:
        wanted = WantedAlias(request.version, request.percent) if request.version else None
        model = await self._serving.set_alias(request.model, request.alias, wanted)
        call.model = model.name
        return pb.SetAliasResponse(model=self._encode(model, "", call))

    async def _migrate(self, request: pb.MigrateAdaptationsRequest, call: Call) -> pb.MigrateAdaptationsResponse:
        migration = await self._serving.migrate(request.model, request.version)
        call.model = migration.model
        return pb.MigrateAdaptationsResponse(migration=encode_migration(migration))

    async def _migration(self, request: pb.GetMigrationRequest, call: Call) -> pb.GetMigrationResponse:
        migration = await self._serving.migration(request.model)
        call.model = migration.model
        return pb.GetMigrationResponse(migration=encode_migration(migration))

    def _encode(self, model: ModelVersions, selector: str, call: Call) -> pb.Model:
        return encode_model(model, model.select(selector, call.caller.account), self._limits)
