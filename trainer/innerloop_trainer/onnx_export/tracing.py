"""Traces functions of tensors into ONNX graphs, gradients inside them included."""

import logging
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch
from onnx import GraphProto, ModelProto
from onnx_ir import Model
from onnx_ir.passes import common as passes
from onnxscript import optimizer
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext, SymbolicContext
from torch.onnx import OnnxExporterError, ONNXProgram
from torch.onnx._internal.exporter import _core as core
from torch.onnx._internal.exporter._registration import ONNXRegistry

from innerloop_trainer.onnx_export.decompositions import decompositions

OPSET = 20
SYMBOL = re.compile(r"[a-z]+\d+")

Sizes = tuple[str | int, ...]
"""A shape: names of dimensions that may have any size, and sizes of others."""


@dataclass(frozen=True)
class Example:
    """A tensor to trace with.

    Attributes:
        tensor: the tensor. Its free sizes are neither 0 nor 1, which tracing treats as special; two of them are equal
            only if they always are.
        shape: names of its free dimensions, and sizes of the others.
    """

    tensor: Tensor
    shape: Sizes

    @property
    def free(self) -> list[int]:
        """Positions and names of the dimensions that may have any size."""
        return [axis for axis, size in enumerate(self.shape) if isinstance(size, str)]


def trace(function: Callable[..., Mapping[str, Tensor]], inputs: Mapping[str, Example]) -> ModelProto:
    """Trace a function into an ONNX graph, with marks in place of loops.

    Args:
        function: function from tensors, in the order of `inputs`, to named tensors. It may compute gradients inside.
        inputs: examples to trace with, by the names that the graph's inputs shall have.
    """
    names: list[str] = []

    def flat(*arguments: Tensor) -> tuple[Tensor, ...]:
        outputs = function(*arguments)
        names[:] = outputs
        return tuple(outputs.values())

    with _silence():
        # PyTorch's exporter refuses functions that compute gradients inside, but takes the traced graph of one.
        graph = make_fx(flat, decompositions(), tracing_mode="symbolic")(*_fakes(inputs.values()))
        graph.graph.eliminate_dead_code()
        graph.recompile()
        free = tuple(dict.fromkeys(example.free, torch.export.Dim.DYNAMIC) for example in inputs.values())
        tensors = tuple(example.tensor for example in inputs.values())
        exported = torch.export.export(graph, tensors, dynamic_shapes=free)
        program = _exported_to_onnx(exported, list(inputs))
    _tidy(program.model)
    outline = program.model.graph
    for value, name in zip((*outline.inputs, *outline.outputs), (*inputs, *names), strict=True):
        value.name = name
    model = program.model_proto
    _name_sizes(model.graph, inputs)
    return model


def _exported_to_onnx(exported: ExportedProgram, inputs: list[str]) -> ONNXProgram:
    """The ONNX graph of a traced function, whose operators our table has replaced already.

    PyTorch's exporter would replace them once more by tracing the whole function again, which takes 40% of the time
    that an export takes. It does so only for a function that has an operator which neither our table nor ONNX knows, as
    a method of another package may; none of ours has one.
    """
    replace_again = exported.run_decompositions
    exported.run_decompositions = lambda *_: exported
    try:
        return _convert(exported, inputs)
    except OnnxExporterError:
        exported.run_decompositions = replace_again
        return _convert(exported, inputs)


def _convert(exported: ExportedProgram, inputs: list[str]) -> ONNXProgram:
    """What `torch.onnx.export` does, which would collect the operators again for every graph."""
    return core.export(
        exported, registry=_operators(), input_names=inputs, opset_version=OPSET, optimize=False, verbose=False
    )


@cache
def _operators() -> ONNXRegistry:
    """How ONNX writes PyTorch's operators; collecting them for each graph takes a third of the time of an export."""
    return ONNXRegistry.from_torchlib(OPSET)


@contextmanager
def _silence() -> Iterator[None]:
    """Hide PyTorch's warnings about its own parts, and about packages that it recommends."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _fakes(examples: Iterable[Example]) -> list[Tensor]:
    """Tensors without content, whose free sizes are symbols."""
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())
    fakes: list[Tensor] = []
    for example in examples:
        sizes = [DimDynamic.DYNAMIC if isinstance(size, str) else DimDynamic.STATIC for size in example.shape]
        context: SymbolicContext = StatelessSymbolicContext(dynamic_sizes=sizes)
        fakes.append(mode.from_tensor(example.tensor, symbolic_context=context))
    return fakes


def _name_sizes(graph: GraphProto, inputs: Mapping[str, Example]) -> None:
    """Give free sizes the names that they have in the examples, everywhere in the graph."""
    names = {
        value.type.tensor_type.shape.dim[axis].dim_param: inputs[value.name].shape[axis]
        for value in graph.input
        for axis in inputs[value.name].free
    }
    for value in (*graph.input, *graph.output, *graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = SYMBOL.sub(lambda match: str(names.get(match[0], match[0])), size.dim_param)


def _tidy(model: Model) -> None:
    """Fold constants, and merge nodes that compute the same.

    The exporter's own optimizer also searches for patterns, which takes most of its time and finds next to nothing.
    """
    for _ in range(2):
        optimizer.fold_constants(model)
        passes.RemoveUnusedNodesPass()(model)
    for tidying in (
        passes.OutputFixPass(),  # an output may be an input too, under the same name
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.NameFixPass(),
    ):
        tidying(model)
