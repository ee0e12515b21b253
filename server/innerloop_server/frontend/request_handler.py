"""Answers one front end's requests, in the engine process."""

import asyncio
import contextlib
import weakref
from typing import Any, assert_never

import msgspec
import numpy as np
from numpy.typing import NDArray

from innerloop_server.domain.answers import Answers
from innerloop_server.domain.deadline import Deadline
from innerloop_server.domain.errors import ModelLoadingError
from innerloop_server.domain.model_versions import find_version
from innerloop_server.domain.models import LOADING_RETRY_SECONDS, ServedModel
from innerloop_server.domain.tasks import AdaptTask, Array, PredictTask, SupportSet
from innerloop_server.domain.updates import SupportUpdate, UpdateTask
from innerloop_server.frontend import messages
from innerloop_server.frontend.failures import failed
from innerloop_server.ipc.allocator import Block, aligned
from innerloop_server.ipc.arrays import ArrayAt, array_in, write
from innerloop_server.ipc.link import Link
from innerloop_server.ipc.segment import Segment
from innerloop_server.serving.interface import Serving

_encoder = msgspec.msgpack.Encoder()
_NO_BLOCK = np.zeros(0, np.uint8)


class RequestHandler:
    """Computes what a front end asks for, and says when its memory is no longer read.

    Args:
        serving: computes.
        link: to the front end.
        segment: shared with it. Arrays that are being computed on refer to it, so it may outlive the front end.
    """

    def __init__(self, serving: Serving, link: Link[Any], segment: Segment) -> None:
        self._serving = serving
        self._link = link
        self._segment = segment
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._blocks: dict[int, weakref.ref[NDArray[np.uint8]]] = {}

    def receive(self, message: messages.Request | messages.Cancel) -> None:
        """Begin a request, or end one that nobody waits for."""
        if isinstance(message, messages.Request):
            self._tasks[message.number] = self._loop.create_task(self._answer(message))
        elif message.number in self._tasks:
            # One turn later: a task that is cancelled before its first step never answers.
            self._loop.call_soon(self._tasks[message.number].cancel)

    async def close(self) -> None:
        """End all requests: the front end is gone. What is being computed already ends by itself."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _answer(self, request: messages.Request) -> None:
        number = request.number
        try:
            block = _NO_BLOCK if request.block is None else self._open_block(number, request.block)
            result = await self._compute(request.operation, Deadline.until(request.deadline), block)
            self._link.send(messages.Reply(number, msgspec.Raw(_encoder.encode(result))))
        except (Exception, asyncio.CancelledError) as error:
            self._link.send(failed(number, error))
            # The traceback's frames hold the request's arrays in reference cycles, which only garbage collection would
            # free.
            error.__traceback__ = error.__context__ = error.__cause__ = None
        finally:
            del self._tasks[number]

    async def _compute(self, operation: messages.Operation, deadline: Deadline, block: NDArray[np.uint8]) -> Any:
        serving = self._serving
        match operation:
            case messages.Adapt():
                to_adapt_to = await self._task(operation.task, block)
                return await serving.adapt(
                    operation.caller, to_adapt_to, operation.keep, deadline, diagnose=operation.diagnose
                )
            case messages.Predict():
                model = await serving.model_of(operation.caller, operation.adaptation_id)
                model.check_format(operation.input_format)
                query = _input(block, operation.query)
                task = PredictTask(model, operation.adaptation_id, query)
                predicted = await serving.predict(operation.caller, task, deadline)
                answers = _sent_answers(predicted.answers, block, operation.room)
                return messages.SentPrediction(answers, predicted.classes, None, predicted.timings)
            case messages.AdaptPredict():
                task_to_adapt_to = await self._task(operation.task, block)
                query = _input(block, operation.query)
                result = await serving.adapt_predict(
                    operation.caller, task_to_adapt_to, query, operation.keep, deadline
                )
                answers = _sent_answers(result.answers, block, operation.room)
                return messages.SentPrediction(answers, (), result.adaptation, result.timings)
            case messages.Update():
                model = await serving.model_of(operation.caller, operation.adaptation_id)
                model.check_format(operation.input_format)
                update = SupportUpdate(
                    operation.edits,
                    _input(block, operation.x),
                    _input(block, operation.targets),
                    _input(block, operation.new_targets),
                )
                to_do = UpdateTask(model, operation.adaptation_id, update, operation.options)
                return await serving.update(operation.caller, to_do, deadline)
            case messages.ListExamples():
                return await serving.examples(
                    operation.caller, operation.adaptation_id, deadline, diagnose=operation.diagnose
                )
            case messages.Download():
                return await serving.download(operation.caller, operation.adaptation_id, deadline)
            case messages.Look():
                return await serving.look(operation.caller, operation.adaptation_id)
            case messages.ListAdaptations():
                return await serving.adaptations(
                    operation.caller, operation.model, operation.before_ns, operation.limit
                )
            case messages.Delete():
                return await serving.delete(operation.caller, operation.adaptation_id)
            case messages.ModelOf():
                return await serving.model_of(operation.caller, operation.adaptation_id)
            case messages.ListModels():
                return await serving.models()
            case messages.GetVersions():
                return await serving.versions(operation.model)
            case messages.Load():
                return await serving.load(operation.model)
            case messages.Unload():
                return await serving.unload(operation.model)
            case messages.SetAlias():
                return await serving.set_alias(operation.model, operation.alias, operation.wanted)
            case messages.Migrate():
                return await serving.migrate(operation.model, operation.selector)
            case messages.GetMigration():
                return await serving.migration(operation.model)
        assert_never(operation)

    async def _task(self, sent: messages.SentTask, block: NDArray[np.uint8]) -> AdaptTask:
        model = await self._decoded_for(sent)
        support = SupportSet(_input(block, sent.x), _input(block, sent.y), sent.ways)
        return AdaptTask(model, support, sent.classes, sent.steps, sent.steps_chosen)

    async def _decoded_for(self, sent: messages.SentTask) -> ServedModel:
        """The version of a model that a task was decoded for; ModelLoadingError if another one serves by now."""
        found = find_version((await self._serving.versions(sent.model)).versions, sent.digest)
        if found is None:
            raise ModelLoadingError(sent.model, LOADING_RETRY_SECONDS)
        return found.served

    def _open_block(self, number: int, place: Block) -> NDArray[np.uint8]:
        """The memory of a request; the front end is told as soon as nothing refers to it any more."""
        block = self._segment.block(place)

        def released(_: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the server has stopped
                self._loop.call_soon_threadsafe(self._release, number)  # arrays may be let go of by any thread

        self._blocks[number] = weakref.ref(block, released)
        return block

    def _release(self, number: int) -> None:
        del self._blocks[number]
        self._link.send(messages.Released(number))


def _input(block: NDArray[np.uint8], place: ArrayAt) -> Array:
    array = array_in(block, place)
    array.flags.writeable = False
    return array


def _sent_answers(answers: Answers, block: NDArray[np.uint8], room: messages.Room | None) -> messages.SentAnswers:
    """Answers, written into the room for them if they fit, otherwise put into the message."""
    arrays = (answers.logits, answers.probabilities, answers.values)
    size = sum(aligned(array.nbytes) for array in arrays if array is not None)
    if room is None or size > room.size:
        return messages.SentAnswers(
            answers.calibration,
            *(None if array is None else messages.ArrayHere(array.tobytes(), array.shape) for array in arrays),
        )
    places = iter(write(block, [array for array in arrays if array is not None], room.offset))
    return messages.SentAnswers(answers.calibration, *(None if array is None else next(places) for array in arrays))
