"""Small graphs that split batches of task states and join states to batches, so that states stay on a device."""

from collections.abc import Mapping, Sequence

from onnx import NodeProto, helper

OPSET, IR_VERSION = 20, 10


def splitting(types: Mapping[str, int], tasks: int) -> bytes:
    """Make a graph that splits each tensor [tasks, ...] into `NAME.0`, `NAME.1`, ..., [1, ...] each.

    Args:
        types: ONNX element types of the tensors, by name.
        tasks: number of tasks in the batch.
    """
    nodes = [
        helper.make_node("Split", [name], [f"{name}.{task}" for task in range(tasks)], axis=0, num_outputs=tasks)
        for name in types
    ]
    return _graph(nodes, types, _rows(types, tasks))


def concatenating(types: Mapping[str, int], tasks: int) -> bytes:
    """Make a graph that joins `NAME.0`, `NAME.1`, ..., [1, ...] each, to tensors [tasks, ...]; see `splitting`."""
    nodes = [helper.make_node("Concat", [f"{name}.{task}" for task in range(tasks)], [name], axis=0) for name in types]
    return _graph(nodes, _rows(types, tasks), types)


def _rows(types: Mapping[str, int], tasks: int) -> dict[str, int]:
    return {f"{name}.{task}": kind for name, kind in types.items() for task in range(tasks)}


def _graph(nodes: Sequence[NodeProto], inputs: Mapping[str, int], outputs: Mapping[str, int]) -> bytes:
    given, made = ([helper.make_tensor_value_info(*end, None) for end in ends.items()] for ends in (inputs, outputs))
    graph = helper.make_graph(nodes, "states", given, made)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return model.SerializeToString()
