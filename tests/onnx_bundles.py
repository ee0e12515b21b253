"""Tiny bundles with ONNX graphs written by hand: what an exporter makes, without one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from bundles import IMAGE, PROTOTYPES, REGRESSION

from innerloop_learner.bundle import save_bundle
from innerloop_learner.learner import build_learner
from innerloop_learner.manifest import Graphs, Manifest, Provenance, TaskLimits
from innerloop_learner.spec import LearnerSpec
from innerloop_learner.traits import Traits

FEATURES, RATE = 6, 0.1
WEIGHT = np.random.default_rng(0).normal(size=(int(np.prod(IMAGE)), FEATURES)).astype(np.float32)

CLASSES = build_learner(PROTOTYPES).traits
CURVES = replace(build_learner(REGRESSION).traits, ways_can_change="any", max_steps=50)

# Class means of projected images; `spread`, which nothing reads, stands for states that serving does not need.
ADAPT_CLASSES = """<ir_version: 10, opset_import: ["": 20]>
adapt (uint8[T,S,1,8,8] support_x, int64[T,S] support_y, bool[T,S] support_mask, int64[T] ways)
    => (float[T,W,6] state_means, int64[T] state_ways, float[T,1] state_spread)
{
    x = Cast<to=1>(support_x)
    shape = Constant<value_ints=[0, 0, -1]>()
    rows = Reshape(x, shape)
    scale = Constant<value_float=0.00392156862745098>()
    scaled = Mul(rows, scale)
    features = MatMul(scaled, weight)
    zero_one = Constant<value_floats=[0.0, 1.0]>()
    most = ReduceMax<keepdims=0>(ways)
    one_hot = OneHot<axis=-1>(support_y, most, zero_one)
    present = Cast<to=1>(support_mask)
    last = Constant<value_ints=[2]>()
    column = Unsqueeze(present, last)
    members = Mul(one_hot, column)
    turned = Transpose<perm=[0, 2, 1]>(members)
    sums = MatMul(turned, features)
    counts = ReduceSum<keepdims=1>(turned, last)
    one = Constant<value_float=1.0>()
    divisors = Max(counts, one)
    state_means = Div(sums, divisors)
    state_ways = Identity(ways)
    middle = Constant<value_ints=[1]>()
    state_spread = ReduceSum<keepdims=1>(present, middle)
}"""
PREDICT_CLASSES = """<ir_version: 10, opset_import: ["": 20]>
predict (float[T,W,6] state_means, int64[T] state_ways, uint8[T,Q,1,8,8] query_x)
    => (float[T,Q,W] logits, float[T,Q,W] probabilities)
{
    x = Cast<to=1>(query_x)
    shape = Constant<value_ints=[0, 0, -1]>()
    rows = Reshape(x, shape)
    scale = Constant<value_float=0.00392156862745098>()
    scaled = Mul(rows, scale)
    features = MatMul(scaled, weight)
    middle = Constant<value_ints=[1]>()
    last = Constant<value_ints=[2]>()
    means = Unsqueeze(state_means, middle)
    queries = Unsqueeze(features, last)
    differences = Sub(queries, means)
    squares = Mul(differences, differences)
    end = Constant<value_ints=[3]>()
    distances = ReduceSum<keepdims=0>(squares, end)
    nearness = Neg(distances)
    sizes = Shape<start=1, end=2>(state_means)
    start = Constant<value_int=0>()
    step = Constant<value_int=1>()
    width = Squeeze(sizes)
    classes = Range(start, width, step)
    axes = Constant<value_ints=[1, 2]>()
    own = Unsqueeze(state_ways, axes)
    there = Less(classes, own)
    logits = Where(there, nearness, nothing)
    probabilities = Softmax<axis=-1>(logits)
}"""
# Gradient steps on a slope and an offset, from zero.
ADAPT_CURVES = """<ir_version: 10, opset_import: ["": 20]>
adapt (float[T,S,1] support_x, float[T,S,1] support_y, bool[T,S] support_mask, int64 steps)
    => (float[T,2,1] state_line, float[T,K] losses)
{
    ones = Constant<value_float=1.0>()
    full = Mul(support_x, zero)
    constant = Add(full, ones)
    inputs = Concat<axis=-1>(support_x, constant)
    present = Cast<to=1>(support_mask)
    last = Constant<value_ints=[2]>()
    column = Unsqueeze(present, last)
    middle = Constant<value_ints=[1]>()
    counts = ReduceSum<keepdims=1>(column, middle)
    turned = Transpose<perm=[0, 2, 1]>(inputs)
    empty = MatMul(turned, column)
    start = Mul(empty, zero)
    go = Constant<value = bool {1}>()
    state_line, history = Loop(steps, go, start) <body = body (int64 number, bool on, float[T,2,1] line)
        => (bool on_still, float[T,2,1] better, float[T] loss) {
        on_still = Identity(on)
        guesses = MatMul(inputs, line)
        errors = Sub(guesses, support_y)
        real = Mul(errors, column)
        squares = Mul(real, real)
        sum = ReduceSum<keepdims=1>(squares, middle)
        mean = Div(sum, counts)
        both = Constant<value_ints=[1, 2]>()
        loss = Squeeze(mean, both)
        slopes = MatMul(turned, real)
        gradient = Div(slopes, counts)
        change = Mul(gradient, rate)
        better = Sub(line, change)
    }>
    losses = Transpose<perm=[1, 0]>(history)
}"""
PREDICT_CURVES = """<ir_version: 10, opset_import: ["": 20]>
predict (float[T,2,1] state_line, float[T,Q,1] query_x) => (float[T,Q,1] values)
{
    ones = Constant<value_float=1.0>()
    full = Mul(query_x, zero)
    constant = Add(full, ones)
    inputs = Concat<axis=-1>(query_x, constant)
    values = MatMul(inputs, state_line)
}"""
CONSTANTS = {
    "weight": WEIGHT,
    "zero": np.zeros((), np.float32),
    "rate": np.full((), 2 * RATE, np.float32),
    "nothing": np.full((), -np.inf, np.float32),
}


def graph(text: str) -> bytes:
    """A model from its text, checked; names `state_X` become `state.X`, which the text form has no way to write."""
    model = onnx.parser.parse_model(text)
    for name, value in CONSTANTS.items():
        if f"{name})" in text or f"{name}," in text:
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    ends = {end.name for end in [*model.graph.input, *model.graph.output] if end.name.startswith("state_")}
    for end in [*model.graph.input, *model.graph.output]:
        end.name = _dotted(end.name, ends)
    for node in model.graph.node:
        node.input[:] = [_dotted(name, ends) for name in node.input]
        node.output[:] = [_dotted(name, ends) for name in node.output]
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _dotted(name: str, ends: set[str]) -> str:
    return name.replace("state_", "state.") if name in ends else name


def write_onnx_bundle(
    path: Path, spec: LearnerSpec, traits: Traits, adapt: str, predict: str, refused: str = ""
) -> Manifest:
    """Save an untrained learner with graphs, which need not compute what the learner does."""
    learner = build_learner(spec)
    manifest = Manifest(
        name=path.name,
        learner=spec,
        limits=TaskLimits(5, 1, traits.default_steps, spec.max_ways, traits.max_steps),
        provenance=Provenance("none", 0, 0, "2026-01-01T00:00:00", {}),
        traits=traits,
        graphs=Graphs(20, refused),
    )
    files = {} if refused else {"adapt.onnx": graph(adapt), "predict.onnx": graph(predict)}
    return save_bundle(path, manifest, learner.init(torch.Generator().manual_seed(0)), files)


def write_onnx_models(folder: Path) -> Path:
    """Bundles "classes" and "curves" with graphs, and "refused", which has none."""
    write_onnx_bundle(folder / "classes", PROTOTYPES, CLASSES, ADAPT_CLASSES, PREDICT_CLASSES)
    write_onnx_bundle(folder / "curves", REGRESSION, CURVES, ADAPT_CURVES, PREDICT_CURVES)
    refused = "its memory has no end"
    write_onnx_bundle(folder / "refused", PROTOTYPES, CLASSES, ADAPT_CLASSES, PREDICT_CLASSES, refused)
    return folder


def class_logits(x: np.ndarray, y: np.ndarray, ways: int, queries: np.ndarray) -> np.ndarray:
    """What the "classes" graphs compute, for one task [Q, ways]."""

    def features(images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1).astype(np.float32) / 255 @ WEIGHT

    means = np.stack([features(x[y == way]).mean(0) for way in range(ways)])
    return -((features(queries)[:, None] - means) ** 2).sum(-1)


def line_values(x: np.ndarray, y: np.ndarray, steps: int, queries: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """What the "curves" graphs compute, for one task [Q, 1], and the losses before each step."""
    inputs, line, losses = np.concatenate([x, np.ones_like(x)], 1), np.zeros((2, 1), np.float32), []
    for _ in range(steps):
        errors = inputs @ line - y
        losses.append(float((errors**2).mean()))
        line -= 2 * RATE * inputs.T @ errors / len(x)
    return np.concatenate([queries, np.ones_like(queries)], 1) @ line, losses
