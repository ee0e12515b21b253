"""Outer steps that are recorded once and replayed give what steps one by one do; without a GPU, see recorded_graph."""

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import CASES, Case, wave_case
from recorded_graph import RecordedGraph, record
from runs import CPU, DIGITS, SINUSOID, train, training

from innerloop_learner import Episodes, Params, build_learner
from innerloop_learner.objectives import Stage, build_objective
from innerloop_trainer.outer_loop import Estimate, Estimator, OptimizerPlan, OuterLoop, build_estimator, replay
from innerloop_trainer.outer_loop.replay import WARM_UP, Replayed
from innerloop_trainer.runs import training as training_module
from innerloop_trainer.runs.folder import RunFolder
from innerloop_trainer.runs.log import read_rows

STEPS = WARM_UP + 4
PLAN = OptimizerPlan(STEPS, learning_rate=0.01, gradient_clip=0.1, weight_decay=0.1)


class Stream:
    def __init__(self, *_: Any) -> None:
        pass

    def wait_stream(self, other: "Stream") -> None:
        pass


@pytest.fixture(autouse=True)
def recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the CPU record and replay."""
    for name, stand_in in {
        "Stream": Stream,
        "current_stream": Stream,
        "stream": lambda _: nullcontext(),
        "device": lambda _: nullcontext(),
        "CUDAGraph": RecordedGraph,
        "graph": record,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    # The package hides this module behind a function.
    monkeypatch.setattr(sys.modules["torch.optim.adam"], "_get_capturable_supported_devices", lambda **_: ["cpu"])
    monkeypatch.setattr(training_module, "can_replay", lambda _: True)


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Has nothing be recorded, ever."""
    with monkeypatch.context() as context:
        context.setattr(replay, "WARM_UP", 10**9)
        yield


def named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def estimator_of(case: Case, name: str = "backpropagation", **settings: Any) -> Estimator:
    return build_estimator(name, build_objective(build_learner(case.spec), case.training), settings)


def dropping() -> Case:
    case = named("protonet-classification-batch-resnet12")
    return Case(replace(case.spec, backbone_settings={**case.spec.backbone_settings, "drop": 0.5}))


REPLAYED = {
    "second order, with buffers": (named("maml-classification-batch"), "backpropagation", {}),
    "with learned rates": (named("meta-sgd-regression-none"), "backpropagation", {}),
    "implicit": (named("imaml-regression-none"), "implicit", {}),
    "without a gradient": (named("maml-regression-none"), "es", {"population": 4}),
    "minibatches in random order": (named("maml-regression-none"), "reptile", {}),
    "dropped features": (dropping(), "backpropagation", {}),
    "fresh weights in every step": (
        wave_case("lstm-optimizer", [4], {"steps": 2, "hidden": 2}, {"initialisation": "random"}),
        "backpropagation",
        {},
    ),
}


def trained(
    case: Case, name: str, settings: dict[str, Any], *, resume_at: int | None = None, plan: OptimizerPlan = PLAN
) -> OuterLoop:
    def loop() -> OuterLoop:
        params = case.params(torch.float32)
        return OuterLoop(estimator_of(case, name, **settings), params, plan, seed=0, replay=True)

    found = loop()
    for iteration in range(plan.iterations):
        if iteration == resume_at:
            state = {key: value.clone() for key, value in found.state().items()}
            found = loop()
            found.restore(state)
        found.step(case.episodes(tasks=2, seed=iteration).to(torch.float32), iteration)
    return found


def assert_equal(found: Params, expected: Params) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("how", REPLAYED)
def test_replayed_steps_are_those_taken_one_by_one_to_the_bit(how: str, request: pytest.FixtureRequest) -> None:
    found = trained(*REPLAYED[how])
    assert found.replayed is not None
    assert found.replayed.recorded
    request.getfixturevalue("one_by_one")
    expected = trained(*REPLAYED[how])
    assert expected.replayed is not None
    assert not expected.replayed.recorded
    assert_equal(found.state(), expected.state())


def test_a_counter_on_the_device_changes_steps_by_rounding_alone() -> None:
    case, name, settings = REPLAYED[
        "with learned rates"
    ]  # and no norm, behind which slopes of biases are rounding alone
    plain = OuterLoop(estimator_of(case, name, **settings), case.params(torch.float32), PLAN, seed=0)
    for iteration in range(STEPS):
        plain.step(case.episodes(tasks=2, seed=iteration).to(torch.float32), iteration)
    for key, value in trained(case, name, settings).params.items():
        torch.testing.assert_close(value, plain.params[key], rtol=1e-4, atol=1e-5, msg=key)


class Remembering(Estimator):
    """Its gradients grow from call to call, and some parameters take their step before the others are estimated."""

    def start(self, params: Params) -> Params:
        del params
        return {"calls": torch.zeros(())}

    def estimate_ahead(self, params: Params, episodes: Episodes, stage: Stage) -> Params:
        del stage
        return {"head.bias": params["head.bias"] + episodes.targets.mean()}

    def estimate(self, params: Params, carried: Params, episodes: Episodes, stage: Stage) -> Estimate:
        del stage
        calls = carried["calls"] + 1
        gradients = {"head.weight": params["head.weight"] + calls * params["head.bias"].sum()}
        return Estimate(gradients, {}, calls, episodes.targets, {"calls": calls})


def test_what_an_estimator_carries_goes_from_replay_to_replay(request: pytest.FixtureRequest) -> None:
    case = named("maml-regression-none")

    def remembered() -> tuple[OuterLoop, list[float]]:
        loop = OuterLoop(Remembering(case.objective, None), case.params(torch.float32), PLAN, seed=0, replay=True)
        batches = [case.episodes(tasks=2, seed=seed).to(torch.float32) for seed in range(STEPS)]
        return loop, [loop.step(episodes, iteration).loss.item() for iteration, episodes in enumerate(batches)]

    loop, calls = remembered()
    assert calls == list(range(1, STEPS + 1))
    assert loop.replayed is not None
    assert loop.replayed.recorded
    request.getfixturevalue("one_by_one")
    assert_equal(loop.state(), remembered()[0].state())


@pytest.mark.parametrize("resume_at", [1, WARM_UP + 2])
def test_a_restored_loop_goes_on_to_the_bit(resume_at: int) -> None:
    how = REPLAYED["second order, with buffers"]
    assert_equal(trained(*how, resume_at=resume_at).state(), trained(*how).state())


def test_a_loop_that_is_set_back_while_it_replays_records_anew() -> None:
    case, name, settings = REPLAYED["second order, with buffers"]
    episodes = [case.episodes(tasks=2, seed=seed).to(torch.float32) for seed in range(STEPS)]
    loop = OuterLoop(estimator_of(case, name, **settings), case.params(torch.float32), PLAN, seed=0, replay=True)
    start = {key: value.clone() for key, value in loop.state().items()}
    ends = []
    for _ in range(2):
        for iteration, batch in enumerate(episodes):
            loop.step(batch, iteration)
        ends.append({key: value.clone() for key, value in loop.state().items()})
        loop.restore(start)
    assert_equal(*ends)


def test_steps_are_recorded_anew_when_their_stage_chooses_something_else(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, recorded = named("maml++-regression-none"), []
    begin = RecordedGraph.__init__
    monkeypatch.setattr(RecordedGraph, "__init__", lambda graph: (recorded.append(graph), begin(graph))[1])
    plan = replace(PLAN, iterations=60)  # six steps by the losses of all inner ones, and twenty of first order
    found = trained(case, "backpropagation", {}, plan=plan)
    assert len(recorded) == 3
    request.getfixturevalue("one_by_one")
    assert_equal(found.state(), trained(case, "backpropagation", {}, plan=plan).state())


def test_steps_that_differ_from_each_other_are_taken_one_by_one_and_it_is_said(request: pytest.FixtureRequest) -> None:
    case, name = named("partial-maml-regression-none"), "reinforce"
    found = trained(case, name, {})
    assert found.replayed is not None
    assert not found.replayed.recorded
    said = found.replayed.take_notice()
    assert said is not None
    assert said.startswith("outer steps are not replayed as a CUDA graph: what they do changes in the course")
    assert found.replayed.take_notice() is None
    request.getfixturevalue("one_by_one")
    assert_equal(found.state(), trained(case, name, {}).state())


def test_what_cannot_be_recorded_is_taken_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(RecordedGraph, "__enter__", refuse)
    how = REPLAYED["second order, with buffers"]
    found = trained(*how)
    assert found.replayed is not None
    assert found.replayed.take_notice() == (
        "outer steps are not replayed as a CUDA graph: operation not permitted when stream is capturing"
    )
    monkeypatch.setattr(replay, "WARM_UP", 10**9)
    assert_equal(found.state(), trained(*how).state())


def test_inputs_of_another_shape_are_not_replayed() -> None:
    calls = []

    def function(stage: Stage, x: torch.Tensor) -> torch.Tensor:
        del stage
        calls.append(len(x))
        return 2 * x

    replayed = Replayed("calls", function, CPU)
    for size in (2, 2, 2, 2, 3, 2):
        x = torch.rand(size)
        assert torch.equal(replayed(Stage(), x), 2 * x)
    assert calls == [2, 2, 2, 2, 3]


def state_of(folder: RunFolder) -> Params:
    state, _ = folder.load_latest(CPU)
    return {name: value for name, value in state.items() if name != "recent_figures"}


@pytest.mark.parametrize("augment", [None, "affine,elastic"])
def test_a_run_replays_draws_and_steps_and_resumes_to_the_bit(
    augment: str | None, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    config = replace(DIGITS, augment=augment)
    whole = train(config, tmp_path / "whole")
    train(config, tmp_path / "stopped", stop_at=7)
    resumed = train(config, tmp_path / "stopped", resume=True)
    assert_equal(state_of(resumed), state_of(whole))
    request.getfixturevalue("one_by_one")
    expected = train(config, tmp_path / "one by one")
    assert_equal(state_of(whole), state_of(expected))
    assert [row.loss for row in read_rows(whole.log)] == [row.loss for row in read_rows(expected.log)]


def test_a_run_replays_all_but_what_reads_the_device(tmp_path: Path) -> None:
    run = training(DIGITS, tmp_path / "digits")
    run.run(lambda _: None, lambda: False)
    assert [each.recorded for each in run._replayed] == [True, True]
    waves = training(SINUSOID, tmp_path / "waves")  # whose draws seed a generator by a number that was drawn
    waves.run(lambda _: None, lambda: False)
    assert [each.recorded for each in waves._replayed] == [True]


def test_a_run_is_told_not_to_replay(tmp_path: Path) -> None:
    assert not training(DIGITS, tmp_path, replay=False)._replayed


def test_a_run_says_once_that_it_does_not_replay(tmp_path: Path) -> None:
    run, said = training(replace(SINUSOID, method="partial-maml"), tmp_path), []
    run.run(lambda report: said.append(report.notice), lambda: False)
    (notice,) = [each for each in said if each is not None]
    assert "outer steps are not replayed" in notice
