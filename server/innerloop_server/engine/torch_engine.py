"""Runs bundles with PyTorch, on a CPU or a GPU."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from innerloop_learner.bundle import Bundle, BundleError, load_bundle
from innerloop_learner.tasks import Query, Support
from innerloop_server.engine.interface import (
    AdaptedTask,
    Answers,
    Array,
    Engine,
    LoadedModel,
    LoadError,
    ModelDescription,
    ModelMetric,
    SupportSet,
    TaskState,
)
from innerloop_server.engine.padding import mask, stack

MOST_THREADS = 4
EXAMPLES_AT_ONCE = 2048


class TorchEngine(Engine):
    """Runs bundles with PyTorch.

    Args:
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N".
        threads: CPU threads of one computation; half of the cores, but at most 4, when None.

    Raises:
        LoadError: there is no such device.
    """

    def __init__(self, device: str = "auto", threads: int | None = None) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self._device = torch.device(device)
        if self._device.type == "cuda" and (self._device.index or 0) >= torch.cuda.device_count():
            raise LoadError(f"there is no device {device} on this machine")
        torch.set_num_threads(threads or default_threads())

    def load(self, path: Path) -> LoadedModel:
        """Load a bundle onto the device."""
        try:
            return TorchModel(load_bundle(path, self._device), self._device)
        except BundleError as error:
            raise LoadError(str(error)) from error

    def memory(self) -> Mapping[tuple[str, str], int]:
        """Memory that PyTorch holds on the GPU, or that this process has resident."""
        name = str(self._device)
        if self._device.type == "cuda":
            return {
                (name, "allocated"): torch.cuda.memory_allocated(self._device),
                (name, "reserved"): torch.cuda.memory_reserved(self._device),
            }
        statistics = Path("/proc/self/statm")
        if not statistics.is_file():
            return {}  # only Linux tells
        pages = int(statistics.read_text().split()[1])
        return {(name, "resident"): pages * os.sysconf("SC_PAGE_SIZE")}


def default_threads() -> int:
    """CPU threads that a computation gets: tasks are small, and the other cores are for handling requests."""
    # Only Linux says which cores this process may use.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(cores // 2, 1), MOST_THREADS)


@dataclass(frozen=True, slots=True, eq=False)
class TorchTaskState(TaskState):
    """Tensors of one task, without the tasks dimension.

    Attributes:
        tensors: the learner's task state.
        ways: classes of the task; zero for regression.
    """

    tensors: dict[str, Tensor]
    ways: int
    size_bytes: int
    signature: tuple[tuple[str, torch.Size, torch.dtype], ...]


class TorchModel(LoadedModel):
    """A bundle on a PyTorch device."""

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        self.description = _describe(bundle)
        self._learner = bundle.learner
        self._params = bundle.params
        self._device = device

    @torch.no_grad()
    def adapt(self, tasks: Sequence[SupportSet], steps: int, width: int) -> list[AdaptedTask]:
        """Learn a batch of tasks, padded to the largest of them."""
        support = Support(
            x=self._inputs([task.x for task in tasks]),  # [T, S, *input]
            y=torch.from_numpy(stack([task.y for task in tasks])).to(self._device),  # [T, S] or [T, S, D]
            mask=torch.from_numpy(mask([task.size for task in tasks])).to(self._device),  # [T, S]
            ways=torch.tensor([task.ways for task in tasks], device=self._device),  # [T]
            max_ways=width,
        )
        state, losses = self._learner.adapt(self._params, support, steps)
        rows = [()] * len(tasks) if losses is None else losses.tolist()
        return [
            AdaptedTask(_slice_state(state, index, task.ways), tuple(row))
            for index, (task, row) in enumerate(zip(tasks, rows, strict=True))
        ]

    @torch.no_grad()
    def predict(self, states: Sequence[TaskState], queries: Sequence[Array]) -> list[Answers]:
        """Answer a batch of tasks, padded to the one with most queries."""
        own = [state for state in states if isinstance(state, TorchTaskState)]
        batch = {name: _stacked([state.tensors[name] for state in own]) for name in own[0].tensors}
        sizes = [len(query) for query in queries]
        query = Query(self._inputs(queries), torch.from_numpy(mask(sizes)).to(self._device))
        outputs = self._in_parts(batch, query).cpu()  # [T, Q, W] or [T, Q, D]
        if self.description.task_kind == "regression":
            return [Answers(values=outputs[task, :size].numpy()) for task, size in enumerate(sizes)]
        probabilities = outputs.softmax(-1)
        return [
            Answers(outputs[task, :size, : state.ways].numpy(), probabilities[task, :size, : state.ways].numpy())
            for task, (size, state) in enumerate(zip(sizes, own, strict=True))
        ]

    def _in_parts(self, states: dict[str, Tensor], query: Query) -> Tensor:
        """Outputs for all queries, some at a time: they don't depend on each other, but their activations add up."""
        tasks, queries = query.mask.shape
        size = max(EXAMPLES_AT_ONCE // tasks, 1)
        if queries <= size:
            return self._learner.predict(self._params, states, query)
        parts = [slice(start, start + size) for start in range(0, queries, size)]
        return torch.cat(
            [
                self._learner.predict(self._params, states, Query(query.x[:, part], query.mask[:, part]))
                for part in parts
            ],
            dim=1,
        )

    def _inputs(self, raw: Sequence[Array]) -> Tensor:
        """Normalised inputs [T, N, *input] on the device; they travel there in the type they came in."""
        return self._learner.spec.input.normalise(torch.from_numpy(stack(raw)).to(self._device))


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors as one batch; a single one is not copied."""
    return torch.stack(list(tensors)) if len(tensors) > 1 else tensors[0].unsqueeze(0)


def _slice_state(state: dict[str, Tensor], index: int, ways: int) -> TorchTaskState:
    """One task's share of a batch, copied so that it does not keep the whole batch in memory."""
    tensors = {name: tensor[index].clone() for name, tensor in state.items()}
    return TorchTaskState(
        tensors,
        ways,
        size_bytes=sum(tensor.nbytes for tensor in tensors.values()),
        signature=tuple((name, tensor.shape, tensor.dtype) for name, tensor in tensors.items()),
    )


def _describe(bundle: Bundle) -> ModelDescription:
    manifest, learner = bundle.manifest, bundle.learner
    limits, spec = manifest.limits, learner.spec
    fixed_head = learner.info.ways_can_change != "any"
    return ModelDescription(
        version=manifest.version,
        digest=manifest.digest,
        method=learner.info.name,
        task_kind=spec.task_kind,
        input_shape=spec.input.shape,
        input_dtype=spec.input.dtype,
        target_size=spec.target_size,
        trained_ways=limits.trained_ways,
        trained_shots=limits.trained_shots,
        trained_steps=limits.trained_steps,
        max_ways=min(limits.max_ways, spec.max_ways) if fixed_head else limits.max_ways,
        max_steps=min(limits.max_steps, learner.max_steps),
        default_steps=learner.default_steps,
        ways_can_change=learner.info.ways_can_change,
        head_ways=spec.max_ways,
        order_matters=learner.info.order_matters,
        gradients_at_serving=learner.info.gradients_at_serving,
        metrics=tuple(
            ModelMetric(metric.name, metric.value, metric.confidence_interval, metric.protocol)
            for metric in manifest.metrics
        ),
    )
