"""Checks that exported graphs give the learner's own answers."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from innerloop_learner.inputs import normalise
from innerloop_learner.learner import Learner
from innerloop_learner.manifest import ADAPT, PREDICT
from innerloop_learner.tasks import Params, Query, Support

Array = NDArray[Any]
Runnable = Callable[[Mapping[str, Array]], dict[str, Array]]

WEIGHTS = "example_weights"
"""Name of the output of an adapt graph that says what each support example counted."""

TASKS, QUERIES, SHOTS = 2, 3, 2
TOLERANCE = 1e-3
"""Largest difference of probabilities, and of values and weights of examples as a share of the largest. Differences by
rounding are far smaller, those by mistakes far larger."""


class GraphError(RuntimeError):
    """Graphs give other answers than their learner."""


def check_graphs(learner: Learner, params: Params, files: Mapping[str, bytes]) -> None:
    """Compare the answers of graphs and learner on tasks of random inputs.

    Raises:
        GraphError: the answers differ.
    """
    support, query = random_task(learner)
    steps = min(2, learner.max_steps)
    with torch.no_grad():
        adapted = learner.adapt(params, support_of(learner, support), steps or None)
        expected = learner.predict(params, adapted.state, query_of(learner, query))
    if learner.spec.task_kind == "classification":
        expected = expected.softmax(-1)
    feed = {name: value.numpy() for name, value in support.items()}
    state = runnable(files[ADAPT])({**feed, "steps": np.array(steps)})
    if adapted.weights is not None:
        _compare("weights", state[WEIGHTS], adapted.weights)
    found = runnable(files[PREDICT])({**state, "query_x": query.numpy()})
    answers = found["values"] if learner.spec.task_kind == "regression" else found["probabilities"]
    _compare("answers", answers, expected)


def _compare(what: str, found: Array, expected: Tensor) -> None:
    difference = float(np.abs(found - expected.numpy()).max())
    if not difference <= TOLERANCE * max(float(expected.abs().max()), 1.0):
        raise GraphError(f"the graphs' {what} differ from the learner's by {difference:.1e}")


def runnable(graph: bytes) -> Runnable:
    """A function from a graph's inputs to its outputs, by name; inputs that the graph does not take are left out."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"])
    taken = {value.name for value in session.get_inputs()}
    given = [value.name for value in session.get_outputs()]

    def run(feed: Mapping[str, Array]) -> dict[str, Array]:
        outputs = session.run(given, {name: value for name, value in feed.items() if name in taken})
        return dict(zip(given, outputs, strict=True))

    return run


def support_of(learner: Learner, tensors: Mapping[str, Tensor]) -> Support:
    """The support sets that the learner takes, made of the inputs of an adapt graph."""
    ways = tensors.get("ways", torch.zeros(TASKS, dtype=torch.int64))
    x = normalise(learner.spec.input, tensors["support_x"])
    width = learner.padded_ways(int(ways.max()))
    return Support(x, tensors["support_y"], tensors["support_mask"], ways, width)


def query_of(learner: Learner, x: Tensor) -> Query:
    """The queries that the learner takes, made of the inputs of a predict graph."""
    return Query(normalise(learner.spec.input, x), torch.ones(x.shape[:2], dtype=torch.bool))


def random_task(learner: Learner) -> tuple[dict[str, Tensor], Tensor]:
    """Random inputs of the adapt graph and random queries; the first task has one example of padding."""
    spec, generator = learner.spec, torch.Generator().manual_seed(0)
    ways = max(min(spec.max_ways, 3), 1) if learner.traits.ways_can_change != "no" else spec.max_ways
    examples = ways * SHOTS
    mask = torch.ones(TASKS, examples, dtype=torch.bool)
    mask[0, -1] = False
    tensors = {"support_x": _inputs(learner, examples, generator), "support_mask": mask}
    if spec.task_kind == "regression":
        tensors["support_y"] = torch.rand(TASKS, examples, spec.target_size, generator=generator)
    else:
        tensors["support_y"] = (torch.arange(examples) % ways).expand(TASKS, -1).contiguous()
        tensors["ways"] = torch.full((TASKS,), ways)
    return tensors, _inputs(learner, QUERIES, generator)


def _inputs(learner: Learner, count: int, generator: torch.Generator) -> Tensor:
    shape = (TASKS, count, *learner.spec.input.shape)
    if learner.spec.input.dtype == "uint8":
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return torch.randn(shape, generator=generator)
