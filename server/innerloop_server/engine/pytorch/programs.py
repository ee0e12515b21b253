"""Programs: what a device is asked to run on one batch."""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import ClassVar, Literal

from torch import Tensor

from innerloop_learner.learner import Learner
from innerloop_server.engine.pytorch.computation import Computation
from innerloop_server.engine.pytorch.state_layout import StateLayout
from innerloop_server.engine.pytorch.state_memory import StateMemory


class Program(ABC):
    """A computation on one batch; programs of equal keys differ in the values of their inputs only.

    Attributes:
        operation: adapt, extend, leave_out or predict.
        key: names it and the shapes of its inputs.
        computation: that it is part of.
        inputs: tensors in the host's memory.
    """

    operation: ClassVar[Literal["adapt", "extend", "leave_out", "predict"]]
    key: Hashable
    computation: Computation
    inputs: tuple[Tensor, ...]

    @property
    def learner(self) -> Learner:
        """The learner that computes it, compiled if there is a compiled one for programs of this key."""
        return self.computation.compiled.get(self.key, self.computation.learner)

    @abstractmethod
    def run(self, learner: Learner, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute, on inputs that lie on the device, with the computation's learner or one that answers alike."""


class AdaptProgram(Program):
    """Learn tasks: from a support set to what `Computation.adapt` returns.

    Attributes:
        layout: of the states, once it is known.
    """

    operation = "adapt"

    def __init__(
        self,
        computation: Computation,
        layouts: dict[Hashable, StateLayout],
        steps: int,
        width: int,
        inputs: tuple[Tensor, ...],
    ) -> None:
        self.computation = computation
        self.inputs = inputs
        self.key = (computation.number, self.operation, steps, width, inputs[0].shape, inputs[0].dtype)
        self._layouts = layouts
        self._size = (width, inputs[0].shape[1])
        self._steps = steps

    @property
    def layout(self) -> StateLayout:
        """The layout of the states, which is known once a program of this width and number of examples has run."""
        return self._layouts[self._size]

    def run(self, learner: Learner, *inputs: Tensor) -> tuple[Tensor, ...]:
        """See Program.run."""
        x, y, present, ways = inputs
        layout, outputs = self.computation.adapt(learner, self._steps, self._size[0], x, y, present, ways)
        self._layouts[self._size] = layout
        return outputs


class ExtendProgram(Program):
    """Learn more examples into states: from pages of these [T, P] and examples to what `Computation.extend` returns.

    Attributes:
        layout: of the new states, once the program has run.
    """

    operation = "extend"
    layout: StateLayout

    def __init__(
        self,
        computation: Computation,
        before: StateLayout,
        memory: StateMemory,
        steps: int,
        width: int,
        inputs: tuple[Tensor, ...],
    ) -> None:
        self.computation = computation
        self.inputs = inputs
        self.key = (computation.number, self.operation, before, steps, width, inputs[1].shape, inputs[1].dtype)
        self._before = before
        self._memory = memory
        self._steps, self._width = steps, width

    def run(self, learner: Learner, *inputs: Tensor) -> tuple[Tensor, ...]:
        """See Program.run."""
        pages, *examples = inputs
        x, y, present, ways = examples
        rows = self._memory.read(pages)
        self.layout, outputs = self.computation.extend(
            learner, self._steps, self._width, self._before, rows, x, y, present, ways
        )
        return outputs


class LeaveOutProgram(Program):
    """Answer examples by tasks without them: parts [T, P, L] and support sets to `Computation.left_out`'s outputs."""

    operation = "leave_out"

    def __init__(self, computation: Computation, steps: int, width: int, inputs: tuple[Tensor, ...]) -> None:
        self.computation = computation
        self.inputs = inputs
        shapes = inputs[0].shape, inputs[1].shape, inputs[1].dtype
        self.key = (computation.number, self.operation, steps, width, *shapes)
        self._steps, self._width = steps, width

    def run(self, learner: Learner, *inputs: Tensor) -> tuple[Tensor, ...]:
        """See Program.run."""
        parts, x, y, present, ways = inputs
        return self.computation.left_out(learner, self._steps, self._width, parts, x, y, present, ways)


class PredictProgram(Program):
    """Answer queries: from pages of states [T, P] and queries to what `Computation.predict` returns."""

    operation = "predict"

    def __init__(
        self, computation: Computation, layout: StateLayout, memory: StateMemory, inputs: tuple[Tensor, ...]
    ) -> None:
        self.computation = computation
        self.inputs = inputs
        self.key = (computation.number, self.operation, layout, inputs[1].shape, inputs[1].dtype)
        self._layout = layout
        self._memory = memory

    def run(self, learner: Learner, *inputs: Tensor) -> tuple[Tensor, ...]:
        """See Program.run."""
        pages, x, present = inputs
        return self.computation.predict(learner, self._layout, self._memory.read(pages), x, present)
