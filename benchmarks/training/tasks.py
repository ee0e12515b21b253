"""The tasks of every workload, the weights that all sides start from, and what these must give."""

import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from workload import QUERIES, WAYS, Batch, Weights, Workload

from innerloop_learner import InputSpec, LearnerSpec, build_learner
from innerloop_trainer.data import EpisodeShape, TaskSampler, load_source

sys.path.append(str(Path(__file__).parent / "peers"))
from by_autograd import Autograd
from torch_side import task_of

SEED = 18

WORKLOADS = (
    Workload("5-way 1-shot, 28x28, 1 step", (1, 28, 28), shots=1, steps=1, tasks=4),
    Workload("5-way 1-shot, 28x28, 5 steps", (1, 28, 28), shots=1, steps=5, tasks=4),
    Workload("5-way 5-shot, 3x32x32, 1 step", (3, 32, 32), shots=5, steps=1, tasks=2),
    Workload("5-way 5-shot, 3x32x32, 5 steps", (3, 32, 32), shots=5, steps=5, tasks=2),
)
"""Tasks per outer step are those that MAML's paper has on photographs at one and at five shots."""

GPU_WORKLOADS = tuple(
    Workload(f"5-way 1-shot, 28x28, 5 steps, {tasks} tasks", (1, 28, 28), shots=1, steps=5, tasks=tasks, device="cuda")
    for tasks in (32, 128)
)


def initial_weights(workload: Workload) -> Weights:
    """Glorot-uniform weights and zero biases."""
    learner = build_learner(LearnerSpec("maml", InputSpec(workload.image), max_ways=WAYS, backbone="conv4"))
    return {name: value.numpy() for name, value in learner.init(torch.Generator().manual_seed(SEED)).items()}


def draw_tasks(workload: Workload, split: str, batches: int) -> Batch:
    """Tasks of characters [B, T, ...], padded with paper and repeated over channels to the size of the workload."""
    source = load_source("glyphs")
    sampler: TaskSampler = getattr(source, split)
    generator = torch.Generator().manual_seed(SEED)
    episodes = sampler.sample(EpisodeShape(WAYS, workload.shots, QUERIES), batches * workload.tasks, generator)
    support, query = (_sized(x, workload) for x in (episodes.support.x, episodes.query.x))
    tensors = (support, episodes.support.y, query, episodes.targets)
    return Batch(*(tensor.unflatten(0, (batches, workload.tasks)).numpy() for tensor in tensors))


def _sized(x: torch.Tensor, workload: Workload) -> torch.Tensor:
    """Images [T, N, 1, 28, 28] as [T, N, *image]; paper is 0."""
    channels, height, width = workload.image
    margins = ((width - x.shape[-1]) // 2,) * 2 + ((height - x.shape[-2]) // 2,) * 2
    return F.pad(x, margins).expand(-1, -1, channels, -1, -1)


def right_gradient(workload: Workload, weights: Weights, batch: Batch) -> tuple[float, Weights]:
    """The mean loss of a batch and its meta-gradient, by plain PyTorch in float64."""
    side = Autograd(replace(workload, device="cpu"), torch.get_num_threads(), processes=1)
    side.restart(weights)
    side.network.double()
    return side.gradient(batch._replace(support=batch.support.astype("float64"), query=batch.query.astype("float64")))


def accuracy(workload: Workload, weights: Weights, batches: Batch) -> float:
    """Share of the queries of batches [B, T, ...] that are answered rightly after adapting, by plain PyTorch."""
    side = Autograd(replace(workload, device="cpu"), torch.get_num_threads(), processes=1)
    side.restart(weights)
    tasks = (values.reshape(-1, *values.shape[2:]) for values in batches)
    shares = []
    for arrays in zip(*tasks, strict=True):
        task = task_of(*arrays)
        answers = side.logits(side.adapted(task, twice=False), task.images).argmax(-1)
        shares.append((answers == task.query_labels).double().mean().item())
    return sum(shares) / len(shares)


def difference(gradient: Weights, right: Weights) -> float:
    """Norm of the difference of two gradients, in parts of the norm of the right one."""
    distance = sum(float(((gradient[name] - right[name]) ** 2).sum()) for name in right)
    return (distance / sum(float((value**2).sum()) for value in right.values())) ** 0.5
