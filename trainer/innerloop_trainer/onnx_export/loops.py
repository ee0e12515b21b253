"""Turns the nodes between two marks into an ONNX Loop.

The body of a loop holds the nodes that depend on a carried value or on the number of the round, and that the loop's
results depend on. All other nodes stay outside and are computed once, since an ONNX body may use values of the graph
around it.
"""

from collections.abc import Collection, Iterable, Iterator

from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper

from innerloop_trainer.onnx_export.marks import COLLECT, DOMAIN, ENTER, LEAVE, LOOP, ROUND, SLOT


def make_loops(graph: GraphProto) -> None:
    """Replace all marks of a graph by loops, in place. An inner loop has a higher number than the loops around it."""
    types = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
    while loops := {_attribute(node, LOOP) for node in graph.node if node.domain == DOMAIN}:
        nodes = _with_loop(list(graph.node), max(loops), types)
        del graph.node[:]
        graph.node.extend(sorted_nodes(nodes))


def sorted_nodes(nodes: Iterable[NodeProto]) -> list[NodeProto]:
    """Sort nodes so that each comes after the nodes whose outputs it takes; otherwise their order is kept.

    Raises:
        ValueError: nodes depend on each other in a circle.
    """
    waiting = list(nodes)
    missing = {name for node in waiting for name in node.output}
    result: list[NodeProto] = []
    while waiting:
        later = []
        for node in waiting:
            if missing.isdisjoint(_taken(node)):
                result.append(node)
                missing.difference_update(node.output)
            else:
                later.append(node)
        if len(later) == len(waiting):
            raise ValueError(f"nodes that wait for one another: {', '.join(node.name for node in later)}")
        waiting = later
    return result


def _with_loop(nodes: list[NodeProto], loop: int, types: dict[str, ValueInfoProto]) -> list[NodeProto]:
    marks = [node for node in nodes if node.domain == DOMAIN and _attribute(node, LOOP) == loop]
    entering, leaving, collected = (_of_kind(marks, kind) for kind in (ENTER, LEAVE, COLLECT))
    numbers = _of_kind(marks, ROUND)  # missing if the body does not use the number of its round
    count = numbers[0].input[0] if numbers else entering[0].input[1]
    index = numbers[0].output[0] if numbers else f"loop{loop}.round"
    others = [node for node in nodes if not any(node is mark for mark in marks)]
    inside = _depending(others, [index, *(node.output[0] for node in entering)])
    inside = _leading(inside, [name for node in (*leaving, *collected) for name in node.input])
    names = {name for node in inside for name in node.output}
    outside = [node for node in others if names.isdisjoint(node.output)]

    prefix = f"loop{loop}"
    before, after = f"{prefix}.goes_on", f"{prefix}.goes_on_still"
    body = [*inside, helper.make_node("Identity", [before], [after], f"{prefix}.condition")]
    outputs = [helper.make_tensor_value_info(after, TensorProto.BOOL, [])]
    carried = (leaving or collected)[0].input[1 : 1 + len(entering)]  # the values that entered follow, kept alive only
    left = [*carried, *(node.input[0] for node in collected)]
    for place, value in enumerate(left):
        # An output may be a value of the body, a carried value or one from outside; a copy gives it a name of its own.
        name = f"{prefix}.output{place}"
        body.append(helper.make_node("Identity", [value], [name], name))
        outputs.append(_typed(name, types[value]))
    inputs = [
        helper.make_tensor_value_info(index, TensorProto.INT64, []),
        helper.make_tensor_value_info(before, TensorProto.BOOL, []),
        *(_typed(node.output[0], types[node.output[0]]) for node in entering),
    ]
    results = {_attribute(node, SLOT): node.output[0] for node in leaving}
    joined = helper.make_node(
        "Loop",
        [count, "", *(node.input[0] for node in entering)],
        [
            *(results.get(slot, f"{prefix}.unused{slot}") for slot in range(len(entering))),
            *(n.output[0] for n in collected),
        ],
        prefix,
        body=helper.make_graph(body, f"{prefix}.body", inputs, outputs),
    )
    return [*outside, joined]


def _of_kind(marks: Iterable[NodeProto], kind: str) -> list[NodeProto]:
    return sorted((node for node in marks if node.op_type == kind), key=lambda node: _attribute(node, SLOT))


def _attribute(node: NodeProto, name: str) -> int:
    return next(int(attribute.i) for attribute in node.attribute if attribute.name == name)


def _depending(nodes: Iterable[NodeProto], names: Iterable[str]) -> list[NodeProto]:
    """The nodes that depend on `names`, directly or through others; `nodes` are sorted."""
    reached = set(names)
    found = []
    for node in nodes:
        if not reached.isdisjoint(_taken(node)):
            found.append(node)
            reached.update(node.output)
    return found


def _leading(nodes: Collection[NodeProto], names: Iterable[str]) -> list[NodeProto]:
    """The nodes that `names` depend on, directly or through others; `nodes` are sorted."""
    wanted = set(names)
    found = []
    for node in reversed(list(nodes)):
        if not wanted.isdisjoint(node.output):
            found.append(node)
            wanted.update(_taken(node))
    return found[::-1]


def _taken(node: NodeProto) -> Iterator[str]:
    """Names of a node's inputs, and of the outer values that graphs inside it use."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            inner = attribute.g
            own = {name for child in inner.node for name in child.output} | {value.name for value in inner.input}
            yield from (name for child in inner.node for name in _taken(child) if name not in own)
            yield from (value.name for value in inner.output if value.name not in own)


def _typed(name: str, like: ValueInfoProto) -> ValueInfoProto:
    value = ValueInfoProto()
    value.CopyFrom(like)
    value.name = name
    return value
