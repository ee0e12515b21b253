"""An engine that computes nothing, to see what the layers above ask of it."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from innerloop_learner.traits import Traits
from innerloop_server.domain.adaptations import KeepOptions
from innerloop_server.domain.answers import Answers
from innerloop_server.domain.models import ModelDescription
from innerloop_server.domain.tasks import AdaptTask, SupportSet
from innerloop_server.engine.interface import AdaptedTask, LoadedModel, TaskState
from innerloop_server.engine.pytorch.state_copies import DirectCopies


class EarlyCopies(DirectCopies):
    """Those of a device that gains from making them early."""

    asynchronous = True


@dataclass(eq=False)
class FakeState(TaskState):
    """A task state of a given size."""

    size_bytes: int = 100
    signature: Any = "any"


@dataclass(eq=False)
class RecordingModel(LoadedModel):
    """Notes what is computed; `fails` says which support sets are poison, `gate` holds computing up."""

    description: ModelDescription
    name: str = "fake"
    batches: list[Any] = field(default_factory=list)
    fails: Any = lambda _: False
    gate: Any = None

    def prepare(self):
        pass

    def compile(self):
        pass

    def adapt(self, tasks, steps, width, *, alone=True):
        del steps, width, alone
        return self._compute("adapt", tasks, lambda _: AdaptedTask(FakeState(), ()))

    def predict(self, states, queries, *, alone=True):
        del states, alone
        return self._compute("predict", queries, lambda query: Answers(values=query))

    def export_state(self, state):
        return bytes(state.size_bytes)

    def import_state(self, content):
        return FakeState(len(content))

    def state_tensors(self, state):
        return {"weights": np.zeros((1, state.size_bytes // 4), np.float32)}

    def _compute(self, operation, tasks, answer):
        if self.gate is not None:
            assert self.gate.wait(10)
        self.batches.append((operation, list(tasks)))
        if any(self.fails(task) for task in tasks):
            raise RuntimeError("poison")
        return [answer(task) for task in tasks]


def describe(**changes):
    """A description of a classifier of 8 x 8 images that takes up to 10 ways."""
    fields = {
        "version": "1",
        "digest": "1",
        "method": "fake",
        "task_kind": "classification",
        "input_shape": (1, 8, 8),
        "input_dtype": "uint8",
        "target_size": 0,
        "trained_ways": 5,
        "trained_shots": 1,
        "trained_steps": 0,
        "max_ways": 10,
        "max_steps": 5,
        "default_steps": 2,
        "ways_can_change": "any",
        "head_ways": 10,
        "order_matters": False,
        "gradients_at_serving": False,
        "extends": False,
    }
    fields |= changes
    traits = Traits(**{each.name: fields.pop(each.name) for each in dataclasses.fields(Traits)})
    return ModelDescription(**fields, traits=traits)


async def keep(
    keeper, model, owner="me", size=100, life=60.0, request_id="", fingerprint=b"", own_most=None, **options
):
    """Have a keeper keep a state of two classes, of that many bytes, for so many seconds."""
    support = SupportSet(np.zeros((2, 1), np.float32), np.zeros(2, np.int64), 2)
    task = AdaptTask(model.served, support, ("a", "b"), 1)
    adapted = AdaptedTask(FakeState(size), (0.5,))
    options = KeepOptions(life, request_id, fingerprint, **options)
    return await keeper.keep(owner, model, task, adapted, options, own_most)
