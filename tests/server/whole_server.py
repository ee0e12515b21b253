"""A server without a transport."""

import asyncio

import numpy as np
from bundles import IMAGE

from innerloop_server.adaptations.keeper import Keeper
from innerloop_server.domain.adaptations import KeepOptions
from innerloop_server.domain.callers import Caller, OwnerLimits
from innerloop_server.domain.deadline import Deadline
from innerloop_server.domain.migrations import MigrationState
from innerloop_server.domain.tasks import AdaptTask, PredictTask, SupportSet
from innerloop_server.domain.timings import Operation
from innerloop_server.engine.pytorch.engine import TorchEngine, TorchSettings
from innerloop_server.models.repository import ModelRepository
from innerloop_server.scheduling.admission import QueueLimits
from innerloop_server.scheduling.lanes import Lanes
from innerloop_server.scheduling.policy import BatchLimits
from innerloop_server.scheduling.scheduler import Scheduler
from innerloop_server.serving.local import LocalServing
from innerloop_server.serving.rate_limits import RateLimits

ME = Caller("me")
QUERY = np.random.default_rng(1).integers(0, 256, (3, *IMAGE), np.uint8)


class Server:
    """What a server consists of, without a transport."""

    def __init__(self, folder, store, metrics, migrate="on-use"):
        self.folder = folder
        self.lanes, engine = Lanes(1), TorchEngine(TorchSettings("cpu", lanes=1))
        self.repository = ModelRepository(folder, engine, self.lanes.call, [])
        limits = BatchLimits(8, 10**8), QueueLimits(100, 10**8, seconds=60.0)
        self.scheduler = Scheduler(self.lanes, 1, *limits, dict.fromkeys(Operation, 1.0), metrics)
        self.keeper = Keeper(store, 10**7, metrics)
        limit = RateLimits(OwnerLimits())
        self.serving = LocalServing(self.repository, self.scheduler, self.keeper, metrics, limit, migrate)
        self.repository.listen(self.serving.migrator)

    async def adapt(self, reference="signs", seed=0, ways=3, caller=ME, **options):
        model = await self.serving.model(caller, reference)
        random = np.random.default_rng(seed)
        support = SupportSet(random.integers(0, 256, (2 * ways, *IMAGE), np.uint8), np.arange(2 * ways) % ways, ways)
        steps = model.description.traits.default_steps
        task = AdaptTask(model, support, tuple("abcdefgh"[:ways]), steps, steps_chosen=False)
        return (await self.serving.adapt(caller, task, KeepOptions(0.0, **options), Deadline())).adaptation

    async def predict(self, adaptation, caller=ME):
        return (await self.answers(adaptation, caller))[1]

    async def answers(self, adaptation, caller=ME):
        """The classes of an adaptation, and the logits of some queries."""
        model = await self.serving.model_of(caller, adaptation.id)
        found = await self.serving.predict(caller, PredictTask(model, adaptation.id, QUERY), Deadline())
        return found.classes, found.answers.logits

    async def migrated(self, name="signs", to=""):
        await self.serving.migrate(name, to)
        async with asyncio.timeout(20):
            while (progress := await self.serving.migration(name)).state is MigrationState.RUNNING:
                await asyncio.sleep(0.01)
        return progress

    async def stop(self):
        await self.serving.migrator.stop()
        self.scheduler.stop()
        await self.lanes.stop(5)
