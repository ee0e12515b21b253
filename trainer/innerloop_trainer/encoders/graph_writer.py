"""Writes ONNX graphs node by node."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

OPSET, IR_VERSION = 20, 10
"""Versions of ONNX's operators and of its file format, as the graphs of learners have."""


class GraphWriter:
    """An ONNX graph of float outputs, written node by node."""

    def __init__(self) -> None:
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def input(self, name: str, shape: Sequence[int | str], *, integers: bool = False) -> str:
        """Add an input; returns its name.

        Args:
            name: name of the input.
            shape: shape of the input; names stand for free sizes.
            integers: whether it is int64, and not float32.
        """
        from onnx import TensorProto, helper

        kind = TensorProto.INT64 if integers else TensorProto.FLOAT
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def constant(self, value: NDArray[Any], name: str) -> str:
        """Add a constant, int64 if it is of integers and float32 otherwise, unless there is one of this name.

        Returns:
            its name.
        """
        from onnx import numpy_helper

        kind = np.int64 if np.issubdtype(value.dtype, np.integer) else np.float32
        self._constants.setdefault(name, numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; returns the name of its output."""
        from onnx import helper

        output = f"{operator.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def output(self, value: str, name: str, shape: Sequence[int | str]) -> None:
        """Make an output of a value.

        Args:
            value: name of the value.
            name: name of the output.
            shape: shape of the output.
        """
        from onnx import TensorProto, helper

        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def finish(self) -> bytes:
        """The whole graph as the content of an ONNX file."""
        from onnx import checker, helper

        constants = list(self._constants.values())
        graph = helper.make_graph(self._nodes, "encoder", self._inputs, self._outputs, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))
