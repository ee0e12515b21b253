"""Exported graphs against PyTorch in float64, for every method; and what they are made of."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import median

import numpy as np
import onnx
import pytest
import torch
from bundles import GRADIENTS, PROTOTYPES, write_bundle
from cases import CASES, Case
from shell import innerloop

from innerloop_learner.acceleration import accelerated
from innerloop_learner.bundle import Bundle, load_bundle
from innerloop_learner.manifest import ADAPT, PREDICT, Graphs
from innerloop_learner.methods.maml import MAML
from innerloop_learner.methods.protonet import ProtoNet
from innerloop_learner.tasks import Adapted, Episodes, Params, Support
from innerloop_learner.update_rules.update_rule import Step, Updated, UpdateRule
from innerloop_trainer.onnx_export import check
from innerloop_trainer.onnx_export.check import Runnable, runnable
from innerloop_trainer.onnx_export.graphs import export_graphs
from innerloop_trainer.onnx_export.tracing import OPSET

FACTOR, ROUNDING = 3.0, 1e-7
"""Error of a graph: in such errors of PyTorch in the same precision, and of the largest answer.

Of each batch the root mean square, and of batches the median: a steep inner loop amplifies rounding a thousandfold in
single tasks, in one engine or in the other.
"""


def _on_mlp(case: Case, norm: str = "none", noise: str = "none", **settings: object) -> Case:
    """The method on one layer: every operation of its own is there, and exporting takes half as long as with two."""
    backbone_settings = {"widths": [8], "norm": norm, "noise": noise, "noise_samples": 2}
    method_settings = {**case.spec.settings, **settings}
    return Case(
        replace(case.spec, backbone="mlp", backbone_settings=backbone_settings, settings=method_settings),
    )


PLAIN = {case.spec.method: case for case in CASES if case.name.endswith("-classification-task")}
NEIGHBOURS = 14
"""More than the examples of a trace, of which there are 13."""
ALIKE = {"fomaml", "reptile", "scratch"}
"""Methods that adapt as maml does: their graphs are the same."""
QUICK = {
    **{method: _on_mlp(case) for method, case in PLAIN.items() if method not in ALIKE},
    "knn": _on_mlp(PLAIN["knn"], k=NEIGHBOURS),
    "lr-d2": _on_mlp(PLAIN["lr-d2"], iterations=2),  # each is written out in the graph
    "maml with adam": _on_mlp(PLAIN["maml"], update_rule="adam"),
    "maml with noise": _on_mlp(PLAIN["maml"], noise="meta_dropout"),
    "protonet with a norm": _on_mlp(PLAIN["protonet"], norm="task"),
    "protonet with a policy": Case(replace(_on_mlp(PLAIN["protonet"]).spec, support_policy="learned")),
    "maml with a policy": Case(replace(_on_mlp(PLAIN["maml"]).spec, support_policy="learned")),
    "maml of curves": Case(
        replace(
            next(case.spec for case in CASES if case.name == "maml-regression-none"),
            backbone_settings={"widths": [8]},
        )
    ),
}
"""Every method on a backbone that is exported in a few seconds."""
RARE = {
    **{f"{method} with norms": _on_mlp(case, norm="task") for method, case in PLAIN.items()},
    "few neighbours": _on_mlp(PLAIN["knn"]),
    "many iterations": _on_mlp(PLAIN["lr-d2"]),
    **{f"{case.name} on {case.spec.backbone}": case for case in CASES},
}
"""Every method with every norm, on convolutions, too: minutes of exporting."""
EVERY = {**RARE, **QUICK}

OFTEN = {"lstm-optimizer", "maml", "protonet"}
"""What `make test` exports: inner loops with and without state, and a metric.

Tracing a learner takes PyTorch seconds, whatever its size; `make test-slow` exports all the others, too.
"""

each_case = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in EVERY]
)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def exported(case_name: str) -> tuple[Graphs, dict[str, bytes]]:
    case = EVERY[case_name]
    manifest, learner = None, accelerated(case.learner, "cpu")  # no manifest is looked at
    return export_graphs(Bundle(manifest, learner, case.params(torch.float32)))  # type: ignore[arg-type]


opened = cache(runnable)


def in_pytorch(case: Case, params: Params, episodes: Episodes, steps: int | None, dtype: torch.dtype) -> torch.Tensor:
    params = {name: value.to(dtype) for name, value in params.items()}
    with torch.no_grad():
        state = case.learner.adapt(params, episodes.support.to(dtype), steps).state
        return case.learner.predict(params, state, episodes.query.to(dtype)).double()


def adapted(files: dict[str, bytes], episodes: Episodes, steps: int | None) -> dict[str, np.ndarray]:
    support = episodes.support
    feed = {
        "support_x": support.x.float().numpy(),
        "support_y": (support.y.float() if support.y.is_floating_point() else support.y).numpy(),
        "support_mask": support.mask.numpy(),
        "ways": support.ways.numpy(),
        "steps": np.array(steps or 0),
    }
    return opened(files[ADAPT])(feed)


def in_onnx(files: dict[str, bytes], episodes: Episodes, steps: int | None) -> torch.Tensor:
    state = adapted(files, episodes, steps)
    answers = opened(files[PREDICT])({**state, "query_x": episodes.query.x.float().numpy()})
    outputs = answers["values"] if "values" in answers else answers["logits"]
    assert len(outputs) == len(episodes.support.x)
    if "probabilities" in answers:
        np.testing.assert_allclose(answers["probabilities"].sum(-1), 1, rtol=1e-5)
    return torch.from_numpy(outputs).double()


def rounded(episodes: Episodes) -> Episodes:
    """The same tasks with inputs that float32 holds exactly."""
    return episodes.to(torch.float32).to(torch.float64)


def of_many_shapes(case: Case) -> Iterator[Episodes]:
    """Batches and single tasks, few and many examples, some of them padding."""
    for seed in range(4):
        yield case.episodes(seed=seed)
        yield case.episodes(tasks=1, shots=5, queries=1, seed=10 + seed)
        masked = case.episodes(tasks=2, seed=20 + seed)
        masked.support.mask[:, -1] = False
        yield masked


@each_case
def test_onnx_runtime_is_as_close_to_float64_as_pytorch_is(name: str) -> None:
    case = EVERY[name]
    graphs, files = exported(name)
    assert graphs.refused == ""
    params = case.params(torch.float32)
    for steps in (1, 5) if case.learner.max_steps else (None,):
        errors: dict[str, list[float]] = {"pytorch": [], "onnx": []}
        for episodes in map(rounded, of_many_shapes(case)):
            found = in_onnx(files, episodes, steps)
            width = found.shape[-1]  # graphs that take any number of ways are as wide as their tasks
            expected = in_pytorch(case, params, episodes, steps, torch.float64)[..., :width]
            plain = in_pytorch(case, params, episodes, steps, torch.float32)[..., :width]
            finite = torch.isfinite(expected)
            assert torch.equal(finite, torch.isfinite(found))
            scale = expected[finite].abs().max().clamp(min=1)
            for engine, answers in (("pytorch", plain), ("onnx", found)):
                errors[engine].append(((answers - expected)[finite] / scale).square().mean().sqrt().item())
        pytorch, onnx_runtime = (median(values) for values in errors.values())
        assert onnx_runtime <= FACTOR * pytorch + ROUNDING, steps


def test_neighbours_are_as_many_as_asked_for_where_there_are_more_examples() -> None:
    case, (_, files) = EVERY["knn"], exported("knn")
    episodes = rounded(case.episodes(shots=NEIGHBOURS))
    found = in_onnx(files, episodes, None)
    expected = in_pytorch(case, case.params(torch.float32), episodes, None, torch.float64)[..., :3]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "weight", "shape_of_weight"),
    [
        ("maml", "linear0.weight", [8, 256]),
        pytest.param(
            "maml-classification-task on conv4", "conv1.weight", [8, 8, 3, 3], marks=pytest.mark.slow, id="convolutions"
        ),
    ],
)
def test_graphs_hold_standard_operators_only_and_have_the_shapes_that_are_promised(
    name: str, weight: str, shape_of_weight: list[int]
) -> None:
    graphs, files = exported(name)
    assert graphs == Graphs(OPSET)
    for content in files.values():
        model = onnx.load_from_string(content)
        assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
        assert not model.functions
        assert {node.domain for node in every_node(model.graph)} == {""}
        onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    adapt = onnx.load_from_string(files[ADAPT])
    assert {value.name: shape(value) for value in adapt.graph.input} == {
        "support_x": ["tasks", "examples", 1, 16, 16],
        "support_y": ["tasks", "examples"],
        "support_mask": ["tasks", "examples"],
        "ways": ["tasks"],
        "steps": [],
    }
    outputs = {value.name: shape(value) for value in adapt.graph.output}
    assert outputs[f"state.weights.{weight}"] == ["tasks", *shape_of_weight]
    assert outputs["losses"] == ["tasks", "steps"]
    predict = onnx.load_from_string(files[PREDICT])
    assert {value.name: shape(value) for value in predict.graph.output} == {
        "logits": ["tasks", "queries", 4],
        "probabilities": ["tasks", "queries", 4],
    }


def test_steps_are_a_choice_at_run_time_and_none_at_all_is_one() -> None:
    case = EVERY["maml"]
    _, files = exported("maml")
    episodes = rounded(case.episodes())
    none, one, seven = (adapted(files, episodes, steps)["losses"] for steps in (0, 1, 7))
    assert (none.size, one.shape, seven.shape) == (0, (3, 1), (3, 7))
    assert (seven[:, 6] < seven[:, 0]).all()
    np.testing.assert_array_equal(one, seven[:, :1])


def test_a_rule_may_carry_what_its_next_step_never_reads() -> None:
    class Forgetting(UpdateRule):
        def start(self, _: Params, weights: Params) -> Params:
            return {f"last.{name}": torch.zeros_like(value) for name, value in weights.items()}

        def update(self, _: Params, __: Params, step: Step) -> Updated:
            weights = {name: value - 0.1 * step.gradients[name] for name, value in step.weights.items()}
            return Updated(weights, {f"last.{name}": value for name, value in step.gradients.items()})

    case = EVERY["maml"]
    learner = case.learner
    assert isinstance(learner, MAML)
    learner.rule = Forgetting()
    graphs, _ = export_graphs(Bundle(None, learner, case.params(torch.float32)))  # type: ignore[arg-type]
    assert graphs.refused == ""


def test_graphs_are_as_wide_as_their_tasks_where_the_method_serves_any_number_of_ways() -> None:
    _, files = exported("protonet")
    for ways in (1, 2, 6):
        support = rounded(EVERY["protonet"].episodes(ways=ways, tasks=1))
        assert in_onnx(files, support, None).shape[-1] == ways


def test_export_adds_graphs_to_a_bundle_and_a_plain_export_keeps_them(tmp_path: Path) -> None:
    write_bundle(tmp_path / "plain", GRADIENTS)
    assert innerloop("export", tmp_path / "plain", "--out", tmp_path / "portable", "--onnx").status == 0
    portable = load_bundle(tmp_path / "portable")
    assert portable.manifest.graphs is not None
    assert set(portable.files) == {ADAPT, PREDICT}
    assert innerloop("export", tmp_path / "portable", "--out", tmp_path / "again").status == 0
    assert load_bundle(tmp_path / "again").files == portable.files
    shown = " ".join(innerloop("inspect", tmp_path / "again").output.split())
    assert f"ONNX graphs │ opset {OPSET}" in shown


def test_a_method_that_cannot_be_exported_says_why_and_stays_a_bundle(tmp_path: Path, monkeypatch) -> None:
    write_bundle(tmp_path / "plain", PROTOTYPES)

    def adapt(*_: object) -> None:
        raise RuntimeError("this method asks an oracle\nof which nobody knows")

    monkeypatch.setattr(ProtoNet, "adapt", adapt)
    status, output, _ = innerloop("export", tmp_path / "plain", "--out", tmp_path / "still", "--onnx")
    assert status == 0
    assert output.splitlines()[-1] == "without ONNX graphs: RuntimeError: this method asks an oracle"
    shown = " ".join(innerloop("inspect", tmp_path / "still").output.split())
    assert "ONNX graphs │ none: RuntimeError: this method asks an oracle" in shown
    bundle = load_bundle(tmp_path / "still")
    assert bundle.manifest.graphs is not None
    assert bundle.manifest.graphs.refused == "RuntimeError: this method asks an oracle"
    assert not bundle.files


def test_the_reason_names_what_onnx_lacks_and_not_the_exporters_advice(monkeypatch) -> None:
    def adapt(_: ProtoNet, __: Params, support: Support, ___: int | None = None) -> Adapted:
        rotated, _ = torch.linalg.qr(support.x.flatten(2))
        return Adapted({"classes": rotated, "ways": support.ways}, None)

    monkeypatch.setattr(ProtoNet, "adapt", adapt)
    graphs, _ = exported.__wrapped__("protonet")
    assert "linalg_qr" in graphs.refused
    assert graphs.refused.isprintable()


def test_graphs_that_answer_otherwise_are_not_given_away(monkeypatch) -> None:
    def wrong(graph: bytes) -> Runnable:
        return lambda feed: {name: value[::-1] for name, value in runnable(graph)(feed).items()}

    monkeypatch.setattr(check, "runnable", wrong)
    graphs, files = exported.__wrapped__("protonet")
    assert graphs.refused.startswith("GraphError: the graphs' answers differ")
    assert not files


def every_node(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from every_node(attribute.g)


def shape(value: onnx.ValueInfoProto) -> list[str | int]:
    return [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
