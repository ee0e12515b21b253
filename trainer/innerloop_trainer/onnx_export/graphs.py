"""Writes a learner and its parameters as two ONNX graphs, for any runtime.

`adapt.onnx` takes raw inputs support_x [T, S, *input], support_y [T, S] int64 (or [T, S, D] for regression),
support_mask [T, S], ways [T] int64 (classification) and steps (a scalar, for methods with steps). It gives the tensors
of the task state, named `state.*`; losses [T, steps], if there are steps; and example_weights [T, S], if the learner
weighs its examples. `predict.onnx` takes the task state and raw inputs query_x [T, Q, *input]. It gives logits and
probabilities [T, Q, W], or values [T, Q, D]. T, S, Q and the number of steps may have any size, and so may W for
methods that serve any number of ways.
"""

import re
from collections.abc import Callable, Mapping
from typing import cast

import onnx
import torch
from onnx import GraphProto, ModelProto, TensorProto, helper
from torch import Tensor

from innerloop_learner.bundle import Bundle
from innerloop_learner.inputs import normalise
from innerloop_learner.learner import Learner
from innerloop_learner.loops import recording, repeat
from innerloop_learner.manifest import ADAPT, PREDICT, Graphs
from innerloop_learner.tasks import Params, Query, Support
from innerloop_trainer.onnx_export.check import WEIGHTS, check_graphs, random_task, support_of
from innerloop_trainer.onnx_export.loops import make_loops, sorted_nodes
from innerloop_trainer.onnx_export.marks import MarkingRecorder
from innerloop_trainer.onnx_export.tracing import OPSET, Example, trace

Traced = Callable[..., Mapping[str, Tensor]]

PRODUCER = "innerloop"
STATE = "state."
COUNTED, CLASSES = "counted", "classes"
"""Names of two inputs that only the trace has: tensors whose sizes stand for the numbers of steps and of ways."""

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
TYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.INT64: torch.int64,
    TensorProto.BOOL: torch.bool,
}
SIZES = {"tasks": 3, "examples": 13, "queries": 17, "ways": 2, "steps": 19}
"""Dimensions that may have any size, and their sizes in traces. No size is 0 or 1, which tracing treats as special. The
number of ways is small, since some methods limit it."""


def export_graphs(bundle: Bundle) -> tuple[Graphs, dict[str, bytes]]:
    """Export a learner's graphs, and return the manifest's section about them and the files by name.

    The graphs' answers are compared with the learner's before. If a method can't be exported, there are no files, and
    the section says why.
    """
    learner, params, refused = bundle.learner, bundle.params, ""
    files: dict[str, bytes] = {}
    normalise(learner.spec.input, _support(learner)["support_x"].tensor)  # its constants are made outside of traces
    try:
        adapt, state = _adapt_graph(learner, params)
        predict = _predict_graph(learner, params, state)
        files = {ADAPT: adapt.SerializeToString(), PREDICT: predict.SerializeToString()}
        check_graphs(learner, params, files)
    except Exception as error:  # tracers and exporters raise whatever they like
        files, refused = {}, _reason(error)
    return Graphs(OPSET, refused), files


def _reason(error: BaseException) -> str:
    """The first line of the innermost cause of an error, since exporters wrap errors in coloured advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {COLOUR.sub('', line)}"


def _adapt_graph(learner: Learner, params: Params) -> tuple[ModelProto, dict[str, Example]]:
    """The adapt graph, and the task state of its trace, from which the predict graph is traced."""
    inputs = _support(learner)

    def adapt(*tensors: Tensor) -> Mapping[str, Tensor]:
        given = dict(zip(inputs, tensors, strict=True))
        steps = cast("int | None", given.get("steps"))  # a tensor, which learners only ever pass on to their loops
        adapted = learner.adapt(params, _as_support(learner, given), steps)
        state = {STATE + name: value for name, value in adapted.state.items()}
        others = {"losses": adapted.losses, WEIGHTS: adapted.weights}
        return {**state, **{name: value for name, value in others.items() if value is not None}}

    model = _finished(trace(_recorded(_by_task(learner, adapt, inputs), inputs), inputs))
    return model, _like_outputs(model)


def _predict_graph(learner: Learner, params: Params, state: Mapping[str, Example]) -> ModelProto:
    shape = learner.spec.input.shape
    inputs = {**state, "query_x": _example(("tasks", "queries", *shape), _raw_type(learner))}

    def predict(*tensors: Tensor) -> Mapping[str, Tensor]:
        given = dict(zip(inputs, tensors, strict=True))
        x = normalise(learner.spec.input, given.pop("query_x"))
        state = {name.removeprefix(STATE): value for name, value in given.items()}
        query = Query(x, torch.ones(x.shape[:2], dtype=torch.bool))  # no answer depends on another query
        outputs = learner.predict(params, state, query)
        if learner.spec.task_kind == "regression":
            return {"values": outputs}
        return {"logits": outputs, "probabilities": outputs.softmax(-1)}

    return _finished(trace(_recorded(_by_task(learner, predict, inputs), inputs), inputs))


def _support(learner: Learner) -> dict[str, Example]:
    """The inputs that an adapt graph is traced with."""
    spec, sizes = learner.spec, ("tasks", "examples")
    regression = spec.task_kind == "regression"
    inputs = {
        "support_x": _example((*sizes, *spec.input.shape), _raw_type(learner)),
        "support_y": _example((*sizes, spec.target_size), torch.float32)
        if regression
        else _example(sizes, torch.int64),
        "support_mask": _example(sizes, torch.bool),
    }
    if not regression:
        inputs["ways"] = _example(("tasks",), torch.int64)
        if learner.traits.ways_can_change == "any":
            inputs[CLASSES] = _example(("ways",), torch.int64)
    if learner.max_steps:
        inputs |= {"steps": Example(torch.tensor(2), ()), COUNTED: _example(("steps",), torch.int64)}
    return inputs


def _as_support(learner: Learner, given: Mapping[str, Tensor]) -> Support:
    """The support sets that an adapt graph's inputs stand for."""
    x, mask = given["support_x"], given["support_mask"]
    ways = given["ways"] if "ways" in given else torch.zeros(x.shape[0], dtype=torch.int64)
    width = given[CLASSES].shape[0] if CLASSES in given else learner.spec.max_ways
    return Support(normalise(learner.spec.input, x), given["support_y"], mask, ways, width)


def _recorded(function: Traced, inputs: Mapping[str, Example]) -> Traced:
    """Wrap a function so that it runs as tracing needs it: loops are recorded, and convolutions suit ONNX."""

    def run(*tensors: Tensor) -> Mapping[str, Tensor]:
        counted = dict(zip(inputs, tensors, strict=True)).get(COUNTED, tensors[0])
        with torch.no_grad(), recording(MarkingRecorder(counted)):
            return function(*tensors)

    return run


def _by_task(learner: Learner, function: Traced, inputs: Mapping[str, Example]) -> Traced:
    """Wrap a function so that tasks run one after the other if convolutions have weights of single tasks.

    Tasks can't be the groups of an ONNX convolution, whose number is fixed. Running all tasks as one matrix product
    takes more than twice as long on a CPU as one convolution per task (measured).
    """
    if not _convolves_by_task(learner):
        return function
    batched = [example.shape[:1] == ("tasks",) for example in inputs.values()]

    def run(*tensors: Tensor) -> Mapping[str, Tensor]:
        def one(index: Tensor, carried: Params) -> tuple[Params, Params]:
            place = index.reshape(1)
            own = (x.index_select(0, place) if many else x for x, many in zip(tensors, batched, strict=True))
            return carried, {name: value.squeeze(0) for name, value in function(*own).items()}

        return repeat(one, {}, tensors[batched.index(True)].shape[0])[1]

    return run


def _convolves_by_task(learner: Learner) -> bool:
    """Whether a task state holds weights of convolutions, [T, O, I, h, w]."""
    support, _ = random_task(learner)
    state = learner.adapt(learner.init(torch.Generator()), support_of(learner, support)).state
    return any(value.dim() == 5 for value in state.values())


def _example(shape: tuple[str | int, ...], dtype: torch.dtype) -> Example:
    sizes = [SIZES[size] if isinstance(size, str) else size for size in shape]
    if dtype == torch.bool:
        return Example(torch.ones(sizes, dtype=dtype), shape)
    return Example(torch.zeros(sizes, dtype=dtype), shape)


def _raw_type(learner: Learner) -> torch.dtype:
    return torch.uint8 if learner.spec.input.dtype == "uint8" else torch.float32


def _like_outputs(model: ModelProto) -> dict[str, Example]:
    """Examples to trace with, of the task state that an adapt graph gives."""
    return {
        output.name: _example(_shape(output), TYPES[output.type.tensor_type.elem_type])
        for output in model.graph.output
        if output.name.startswith(STATE)
    }


def _shape(value: onnx.ValueInfoProto) -> tuple[str | int, ...]:
    return tuple(size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim)


def _finished(model: ModelProto) -> ModelProto:
    """Put loops into a traced graph, and remove the inputs that only the trace needed."""
    graph = model.graph
    make_loops(graph)
    _free_ways(graph)
    inputs = [value for value in graph.input if value.name not in (COUNTED, CLASSES)]
    finished = helper.make_model(
        helper.make_graph(sorted_nodes(graph.node), graph.name, inputs, graph.output, graph.initializer),
        producer_name=PRODUCER,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=helper.find_min_ir_version_for([helper.make_opsetid("", OPSET)]),
    )
    _strip(finished.graph)
    onnx.checker.check_model(finished, full_check=True)
    return finished


def _free_ways(graph: GraphProto) -> None:
    """Make the width of a graph's logits the largest of its tasks' ways, instead of the size of a trace-only input."""
    if all(value.name != CLASSES for value in graph.input):
        return
    initial = [helper.make_tensor(f"{CLASSES}.{value}", TensorProto.INT64, [], [value]) for value in (0, 1)]
    graph.initializer.extend(initial)
    first, step = (tensor.name for tensor in initial)
    graph.node.extend(
        [
            helper.make_node("ReduceMax", ["ways"], [f"{CLASSES}.number"], keepdims=0),
            helper.make_node("Range", [first, f"{CLASSES}.number", step], [CLASSES]),
        ]
    )


def _strip(graph: GraphProto) -> None:
    """Remove the exporter's notes on which line of PyTorch each node comes from."""
    for node in graph.node:
        del node.metadata_props[:]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _strip(attribute.g)
