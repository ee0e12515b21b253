"""What lies between marks becomes ONNX Loops that compute what the Python loops compute."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import GraphProto, helper

from innerloop_learner.loops import recording, repeat
from innerloop_trainer.onnx_export.loops import make_loops, sorted_nodes
from innerloop_trainer.onnx_export.marks import MarkingRecorder
from innerloop_trainer.onnx_export.tracing import OPSET, Example, trace

HEADER = f'<ir_version: 10, opset_import: ["": {OPSET}, "innerloop": 1]>'
START = np.array([1.0, 2.0, 3.0], np.float32)


def with_loops(text: str) -> GraphProto:
    """A graph of standard operators, made from one with marks."""
    graph = onnx.parser.parse_model(HEADER + text).graph
    make_loops(graph)
    return graph


def run(graph: GraphProto, **inputs: np.ndarray) -> list[np.ndarray]:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {name: np.asarray(value) for name, value in inputs.items()})


def loops_of(graph: GraphProto) -> list[onnx.NodeProto]:
    return [node for node in graph.node if node.op_type == "Loop"]


def body_of(loop: onnx.NodeProto) -> GraphProto:
    return next(attribute.g for attribute in loop.attribute if attribute.name == "body")


def operators(graph: GraphProto) -> list[str]:
    return [node.op_type for node in graph.node if node.op_type != "Identity"]


SUM = """g (float[3] start, int64 n, float[3] change) => (float[3] end)
    <float[3] inside, float[3] after, float[3] step>
{
    step = Neg(change)
    inside = innerloop.Enter<loop=0, slot=0>(start, n)
    after = Sub(inside, step)
    end = innerloop.Leave<loop=0, slot=0>(after, after, inside)
}"""


@pytest.mark.parametrize("rounds", [0, 1, 4])
def test_a_body_uses_values_from_outside_which_are_computed_once(rounds: int) -> None:
    graph = with_loops(SUM)
    (loop,) = loops_of(graph)
    assert operators(graph) == ["Neg", "Loop"]
    assert operators(body_of(loop)) == ["Sub"]
    (end,) = run(graph, start=START, n=np.int64(rounds), change=START)
    np.testing.assert_array_equal(end, START * (1 + rounds))


def test_rounds_are_numbered_from_zero_and_what_each_leaves_is_gathered() -> None:
    graph = with_loops(
        """g (float[3] start, int64 n) => (float[3] end, float[R, 3] left, int64[R] numbers)
            <float[3] inside, float[3] after, int64 round, float number>
        {
            round = innerloop.Round<loop=0, slot=0>(n)
            inside = innerloop.Enter<loop=0, slot=0>(start, n)
            number = Cast<to=1>(round)
            after = Add(inside, number)
            left = innerloop.Collect<loop=0, slot=0>(inside, after, inside)
            numbers = innerloop.Collect<loop=0, slot=1>(round, after, inside)
            end = innerloop.Leave<loop=0, slot=0>(after, after, inside)
        }"""
    )
    end, left, numbers = run(graph, start=START, n=np.int64(4))
    np.testing.assert_array_equal(end, START + 6)
    np.testing.assert_array_equal(left, [START, START, START + 1, START + 3])
    np.testing.assert_array_equal(numbers, range(4))


def test_loops_lie_within_loops() -> None:
    """Each round of the outer loop adds the sum of all that the inner one counts, times its own number."""
    graph = with_loops(
        """g (float[3] start, int64 n, int64 m) => (float[3] end)
            <float[3] outer, float[3] inner, float[3] twice, float[3] more, float[3] found, int64 i, float number>
        {
            i = innerloop.Round<loop=0, slot=0>(n)
            outer = innerloop.Enter<loop=0, slot=0>(start, n)
            number = Cast<to=1>(i)
            inner = innerloop.Enter<loop=1, slot=0>(outer, m)
            more = Add(inner, number)
            found = innerloop.Leave<loop=1, slot=0>(more, more, inner)
            twice = Add(found, found)
            end = innerloop.Leave<loop=0, slot=0>(twice, twice, outer)
        }"""
    )
    (outer,) = loops_of(graph)
    (inner,) = loops_of(body_of(outer))
    assert operators(body_of(inner)) == ["Add"]
    expected = START
    for number in range(3):
        expected = 2 * (expected + 2 * number)
    np.testing.assert_array_equal(run(graph, start=START, n=np.int64(3), m=np.int64(2))[0], expected)
    np.testing.assert_array_equal(run(graph, start=START, n=np.int64(3), m=np.int64(0))[0], 8 * START)


def test_a_loop_that_needs_nothing_of_the_loop_around_it_runs_once() -> None:
    graph = with_loops(
        """g (float[3] start, int64 n) => (float[3] end)
            <float[3] outer, float[3] inner, float[3] more, float[3] found, float[3] sum>
        {
            outer = innerloop.Enter<loop=0, slot=0>(start, n)
            inner = innerloop.Enter<loop=1, slot=0>(start, n)
            more = Add(inner, start)
            found = innerloop.Leave<loop=1, slot=0>(more, more, inner)
            sum = Add(outer, found)
            end = innerloop.Leave<loop=0, slot=0>(sum, sum, outer)
        }"""
    )
    assert [operators(body_of(loop)) for loop in loops_of(graph)] == [["Add"], ["Add"]]
    np.testing.assert_array_equal(run(graph, start=START, n=np.int64(3))[0], START + 3 * 4 * START)


def test_two_loops_in_a_row_each_keep_their_own() -> None:
    graph = with_loops(
        """g (float[3] start, int64 n, int64 m) => (float[3] end)
            <float[3] first, float[3] more, float[3] middle, float[3] second, float[3] turned>
        {
            first = innerloop.Enter<loop=0, slot=0>(start, n)
            more = Add(first, start)
            middle = innerloop.Leave<loop=0, slot=0>(more, more, first)
            second = innerloop.Enter<loop=1, slot=0>(middle, m)
            turned = Neg(second)
            end = innerloop.Leave<loop=1, slot=0>(turned, turned, second)
        }"""
    )
    assert [operators(body_of(loop)) for loop in loops_of(graph)] == [["Add"], ["Neg"]]
    np.testing.assert_array_equal(run(graph, start=START, n=np.int64(4), m=np.int64(3))[0], -5 * START)


@pytest.mark.parametrize("rounds", [0, 3])
def test_a_value_may_be_carried_through_unchanged_and_two_may_change_places(rounds: int) -> None:
    graph = with_loops(
        """g (float[3] a, float[3] b, float[2] c, int64 n) => (float[3] a_end, float[3] b_end, float[2] c_end)
            <float[3] a_in, float[3] b_in, float[2] c_in>
        {
            a_in = innerloop.Enter<loop=0, slot=0>(a, n)
            b_in = innerloop.Enter<loop=0, slot=1>(b, n)
            c_in = innerloop.Enter<loop=0, slot=2>(c, n)
            a_end = innerloop.Leave<loop=0, slot=0>(b_in, b_in, a_in, c_in, a_in, b_in, c_in)
            b_end = innerloop.Leave<loop=0, slot=1>(a_in, b_in, a_in, c_in, a_in, b_in, c_in)
            c_end = innerloop.Leave<loop=0, slot=2>(c_in, b_in, a_in, c_in, a_in, b_in, c_in)
        }"""
    )
    c = np.array([7.0, 8.0], np.float32)
    ends = run(graph, a=START, b=-START, c=c, n=np.int64(rounds))
    swapped = [-START, START] if rounds % 2 else [START, -START]
    for found, expected in zip(ends, [*swapped, c], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_result_that_nobody_uses_leaves_the_others_in_their_places() -> None:
    graph = with_loops(
        """g (float[3] a, float[3] b, int64 n) => (float[3] end)
            <float[3] a_in, float[3] b_in, float[3] a_after, float[3] b_after>
        {
            a_in = innerloop.Enter<loop=0, slot=0>(a, n)
            b_in = innerloop.Enter<loop=0, slot=1>(b, n)
            a_after = Neg(a_in)
            b_after = Add(b_in, a_in)
            end = innerloop.Leave<loop=0, slot=1>(b_after, a_after, b_after, a_in, b_in)
        }"""
    )
    np.testing.assert_array_equal(run(graph, a=START, b=10 * START, n=np.int64(3))[0], 11 * START)


def test_a_loop_whose_results_nobody_uses_harms_nobody() -> None:
    graph = with_loops(SUM.replace("(float[3] end)", "(float[3] other)").replace("}", "    other = Abs(start)\n}"))
    np.testing.assert_array_equal(run(graph, start=-START, n=np.int64(2), change=START)[0], START)


def test_what_is_gathered_may_be_all_that_is_used() -> None:
    graph = with_loops(
        """g (float[3] start, int64 n) => (float[R, 3] left) <float[3] inside, float[3] after>
        {
            inside = innerloop.Enter<loop=0, slot=0>(start, n)
            after = Add(inside, inside)
            left = innerloop.Collect<loop=0, slot=0>(after, after, inside)
        }"""
    )
    np.testing.assert_array_equal(run(graph, start=START, n=np.int64(2))[0], [2 * START, 4 * START])


def test_nodes_come_after_what_they_take_something_from_else_as_they_were() -> None:
    graph = onnx.parser.parse_graph(
        "g (float[3] x) => (float[3] y) { c = Neg(b)  a = Abs(x)  d = Neg(x)  b = Abs(a)  y = Add(c, d) }"
    )
    assert [node.output[0] for node in sorted_nodes(graph.node)] == ["a", "d", "b", "c", "y"]


def test_nodes_that_wait_for_one_another_have_no_order() -> None:
    graph = onnx.parser.parse_graph("g (float[3] x) => (float[3] y) { a = Abs(x)  b = Add(a, y)  y = Neg(b) }")
    with pytest.raises(ValueError, match="wait for one another"):
        sorted_nodes(graph.node)


def scaled(index, carried):
    """Reads the number of its round, and a constant."""
    after = carried["x"] * torch.tensor([2.0, 1.0, -1.0]) + index
    return {"x": after}, {"sum": after.sum()}


def untouched(index, carried):
    """Carries a value through unchanged, and leaves another that it never looks at."""
    return {"x": carried["x"], "y": carried["x"] * index}, {}


def exchanged(index, carried):
    del index
    return {"x": carried["y"], "y": carried["x"]}, {"both": carried["x"] + carried["y"]}


def constant(index, carried):
    """What it carries on depends on nothing that was carried to it."""
    return {"x": torch.tensor([2.0, 1.0, -1.0]) + 0 * index, "y": torch.ones(3)}, {"x": carried["x"]}


def nested(index, carried):
    inner, left = repeat(scaled, {"x": carried["x"]}, 2)
    return {"x": inner["x"] / (1 + index)}, left


def in_a_row(index, carried):
    first, _ = repeat(scaled, {"x": carried["x"]}, 2)
    second, _ = repeat(untouched, {"x": first["x"], "y": carried["x"]}, 3)
    return {"x": second["y"] + index}, {}


def unused(index, carried):
    repeat(scaled, {"x": carried["x"]}, 2)
    return {"x": carried["x"] + index}, {}


@pytest.mark.parametrize("body", [scaled, untouched, exchanged, constant, nested, in_a_row, unused])
def test_a_traced_loop_computes_what_the_loop_in_python_does(body) -> None:
    names = ["x"] if body in (scaled, nested, in_a_row, unused) else ["x", "y"]

    def function(x: torch.Tensor, rounds) -> dict[str, torch.Tensor]:
        after, left = repeat(body, {name: x * (place + 1) for place, name in enumerate(names)}, rounds)
        results = {f"after.{name}": value for name, value in after.items()}
        return {**results, **{f"left.{name}": value for name, value in left.items()}}

    def recorded(x: torch.Tensor, rounds: torch.Tensor, counted: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.no_grad(), recording(MarkingRecorder(counted)):
            return function(x, rounds)

    examples = {
        "x": Example(torch.zeros(3), (3,)),
        "rounds": Example(torch.tensor(2), ()),
        "counted": Example(torch.zeros(19, dtype=torch.int64), ("rounds",)),
    }
    graph = trace(recorded, examples).graph
    make_loops(graph)
    graph.input.remove(next(value for value in graph.input if value.name == "counted"))
    for rounds in (0, 1, 4):
        found = run(graph, x=START, rounds=np.int64(rounds))
        expected = function(torch.from_numpy(START), rounds)
        for value, array in zip(graph.output, found, strict=True):
            if value.name in expected:  # else nothing was left, since there were no rounds
                np.testing.assert_allclose(array, expected[value.name].numpy(), rtol=1e-6)
            else:
                assert array.size == 0
