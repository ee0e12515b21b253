"""A front end's own process: what it makes of the news from the engine process."""

import asyncio

from fakes import describe

from innerloop_server.domain.callers import Caller
from innerloop_server.domain.model_versions import ModelVersions
from innerloop_server.domain.models import ModelEntry, ModelState
from innerloop_server.frontend import messages
from innerloop_server.frontend.process import FrontEndProcess
from innerloop_server.ipc.segment import Segment


def model(digest):
    return ModelVersions("model", (ModelEntry("model", ModelState.READY, describe(digest=digest)),))


async def test_a_model_is_known_before_answers_that_were_sent_after_the_news_of_it():
    segment = Segment.create(1 << 20)
    segment.close()
    process = FrontEndProcess(segment)

    async def digest():
        async with asyncio.timeout(5):  # it would ask the engine process, of which there is none
            return (await process._serving.model(Caller("me"), "model")).description.digest

    process._receive(messages.Start("{}", 0, "/tmp", (model("first"),), True, True))
    assert await digest() == "first"
    process._receive(messages.ModelChanged(model("second")))
    assert await digest() == "second"
