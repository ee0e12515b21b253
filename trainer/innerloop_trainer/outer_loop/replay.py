"""Outer steps that are recorded once on a GPU and replayed as a CUDA graph.

A step consists of hundreds or thousands of small operations, and to launch them one by one takes the host longer than
to compute them takes a GPU. A graph launches all of them at once.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from innerloop_learner.objectives import Stage
from innerloop_learner.tasks import Params

T = TypeVar("T")

WARM_UP = 3
"""Calls before a function is recorded, in which libraries choose and set up their kernels; PyTorch's notes on CUDA
graphs take as many."""


def can_replay(device: torch.device) -> bool:
    """Whether a device can record its work and replay it."""
    return device.type == "cuda"


Make = Callable[[Stage], Params]
"""A function that `Stage.made` is given."""

Choices = Sequence[tuple[Callable[[Stage], Any], Any]]
"""Functions that `Stage.chosen` was given, and what they chose."""


@dataclass(frozen=True)
class _Recorded:
    """A recorded call: fill its inputs, replay, read its outputs.

    Attributes:
        replay: runs it again on the same memory.
        inputs: tensors that it reads.
        made: functions of the stage, and the tensors that it reads in the place of what these give.
        outputs: the result, in memory that each replay writes anew.
    """

    replay: Callable[[], None]
    inputs: Sequence[Tensor]
    made: Sequence[tuple[Make, Params]]
    outputs: Any


class Replayed(Generic[T]):
    """A function that launches the same work on a GPU whenever it is called, replayed as a CUDA graph after some calls.

    All calls count, and give the same as the function itself, to the bit. What a replay returns holds until the next
    call. It is recorded anew when its stage chooses something else (`Stage.chosen`). A function that can't be recorded
    is called as it is: one that reads its stage other than by `Stage.made` and `Stage.chosen`, or waits for the GPU.

    Args:
        name: what users call its calls.
        function: function of a stage and of tensors, which may be inside of dataclasses and mappings. What else it
            depends on lies in tensors that are only changed in place.
        device: the GPU.
        generators: generators on the GPU that it draws from; callers may seed them before each call.
    """

    def __init__(
        self, name: str, function: Callable[..., T], device: torch.device, generators: Sequence[torch.Generator] = ()
    ) -> None:
        self._name, self._function, self._device, self._generators = name, function, device, generators
        self._stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._refused: str | None = None
        self._told = False
        self.forget()

    def forget(self) -> None:
        """Record anew, since tensors that the function depends on were replaced by others."""
        self._calls = 0
        self._made: Sequence[tuple[Make, Params]] = ()
        self._choices: Choices = ()
        self._recorded: _Recorded | None = None

    @property
    def recorded(self) -> bool:
        """Whether it is being replayed."""
        return self._recorded is not None

    def take_notice(self) -> str | None:
        """What the user should know, once: why it is not replayed."""
        if self._refused is None or self._told:
            return None
        self._told = True
        return f"{self._name} are not replayed as a CUDA graph: {self._refused}"

    def __call__(self, stage: Stage, *inputs: Any) -> T:
        """Call the function, or replay it."""
        if any(choose(stage) != chosen for choose, chosen in self._choices):
            self.forget()
        if self._refused is None and self._recorded is None:
            if self._calls < WARM_UP:
                return self._warm_up(stage, inputs)
            self._record(inputs)
        recorded = self._recorded
        if recorded is None or not _alike(recorded.inputs, inputs):
            return self._function(stage, *inputs)
        for static, given in zip(recorded.inputs, _tensors(inputs), strict=True):
            static.copy_(given)
        for make, tensors in recorded.made:
            for name, value in stage.made(make, self._device).items():
                tensors[name].copy_(value)
        recorded.replay()
        outputs: T = recorded.outputs
        return outputs

    def _warm_up(self, stage: Stage, inputs: Sequence[Any]) -> T:
        """Call the function on the stream on which it will be recorded."""
        watched, current = _WatchedStage(stage), torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            outputs = self._function(watched, *inputs)
        current.wait_stream(self._stream)
        if watched.was_read:
            self._refused = "what they do changes in the course of training, or depends on numbers that the host draws"
        self._calls, self._made, self._choices = self._calls + 1, watched.made_before, watched.choices
        return outputs

    def _record(self, inputs: Sequence[Any]) -> None:
        """Record a call, which computes nothing yet."""
        static = [_cloned(each) for each in inputs]
        stage = _RecordedStage(self._made, self._choices)
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        try:
            # The outer context leaves the stream of the graph even where the inner one fails to.
            with (
                torch.cuda.device(self._device),
                torch.cuda.stream(torch.cuda.current_stream(self._device)),
                torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
            ):
                outputs = self._function(stage, *static)
        except RuntimeError as error:
            self._refused = str(error).partition("\n")[0]
        else:
            self._recorded = _Recorded(graph.replay, list(_tensors(static)), self._made, outputs)


class _WatchedStage(Stage):
    """A stage that notes what is made of it, and whether it is read in another way.

    Attributes:
        made_before: functions that `made` was given and what they gave, in order.
        choices: functions that `chosen` was given and what they chose, in order.
        was_read: whether it was read in another way.
    """

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage.progress, stage.seed)
        object.__setattr__(self, "was_read", False)
        object.__setattr__(self, "made_before", [])
        object.__setattr__(self, "choices", [])
        object.__setattr__(self, "_stage", stage)

    made_before: list[tuple[Make, Params]]
    choices: list[tuple[Callable[[Stage], Any], Any]]
    was_read: bool
    _stage: Stage

    def __getattribute__(self, name: str) -> Any:
        if name in _READ:
            object.__setattr__(self, "was_read", True)
        return super().__getattribute__(name)

    def made(self, make: Make, device: torch.device) -> Params:
        """See Stage.made."""
        tensors = self._stage.made(make, device)
        self.made_before.append((make, tensors))
        return tensors

    def chosen(self, choose: Callable[[Stage], T]) -> T:
        """See Stage.chosen."""
        value = choose(self._stage)
        self.choices.append((choose, value))
        return value


_READ = frozenset(field.name for field in fields(Stage))


class _RecordedStage(Stage):
    """A stage of a recorded call: gives the tensors of an earlier call, which are filled anew before each replay.

    It chooses what was chosen then.
    """

    def __init__(self, made: Sequence[tuple[Make, Params]], choices: Choices) -> None:
        super().__init__()
        object.__setattr__(self, "_given", iter(made))
        object.__setattr__(self, "_choices", iter(choices))

    _given: Iterator[tuple[Make, Params]]
    _choices: Iterator[tuple[Callable[[Stage], Any], Any]]

    def made(self, make: Make, device: torch.device) -> Params:
        """See Stage.made."""
        del make, device
        return next(self._given)[1]

    def chosen(self, choose: Callable[[Stage], T]) -> T:
        """See Stage.chosen."""
        del choose
        value: T = next(self._choices)[1]
        return value


def _cloned(tree: Any) -> Any:
    """A copy of a tensor, or of what holds tensors: a dataclass or a mapping. What else it holds stays the same."""
    if isinstance(tree, Tensor):
        return tree.clone()
    if isinstance(tree, Mapping):
        return {name: _cloned(value) for name, value in tree.items()}
    return replace(tree, **_cloned(_fields(tree))) if is_dataclass(tree) and not isinstance(tree, type) else tree


def _tensors(trees: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors in trees, in order."""
    for tree in trees:
        if isinstance(tree, Tensor):
            yield tree
        elif isinstance(tree, Mapping):
            yield from _tensors(tree.values())
        elif is_dataclass(tree):
            yield from _tensors(_fields(tree).values())


def _fields(tree: Any) -> dict[str, Any]:
    return {field.name: getattr(tree, field.name) for field in fields(tree)}


def _alike(static: Sequence[Tensor], inputs: Sequence[Any]) -> bool:
    """Whether inputs have the shapes and types of those that a call was recorded with."""
    return [(each.shape, each.dtype) for each in static] == [(each.shape, each.dtype) for each in _tensors(inputs)]
