"""The comparison with libraries that train MAML compares one computation, and chooses and counts as it says."""

import importlib.util
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import psutil
import pytest
import torch
import torch.nn.functional as F
from by_autograd import Autograd, ChannelsLast
from by_turns import LOSS_TOLERANCE, STEPS_BETWEEN, TOLERANCE, Measuring
from by_vmap import Vmap
from comparing import compare, fastest_ways, markdown, ratio
from network import SupportNorm
from sides import OURS, SideProcess, SideSpec
from tasks import difference, draw_tasks, initial_weights, right_gradient
from workload import Workload, batch_of

WORKLOAD = Workload("small", (1, 16, 16), shots=1, steps=2, tasks=2)

FAKE = """
import sys
sys.path.insert(0, {folder!r})
import numpy as np
from side import Side, serve

class Fake(Side):
    def __init__(self, workload, threads, processes):
        self.threads = threads
    def restart(self, weights):
        self.own = dict(weights)
    def step(self, batch):
        print("a library says something")
        self.own = {{name: value + 1 for name, value in self.own.items()}}
        {fails}
        return 0.5
    def gradient(self, batch):
        return 1.0, self.own
    def weights(self):
        return self.own

serve(Fake)
"""


@pytest.fixture(scope="module")
def right():
    weights, batch = initial_weights(WORKLOAD), batch_of(draw_tasks(WORKLOAD, "train", 1), 0)
    return weights, batch, *right_gradient(WORKLOAD, weights, batch)


def ours():
    # Another benchmark has a module of this name.
    file = Path(sys.modules["by_turns"].__file__).with_name("ours.py")
    spec = importlib.util.spec_from_file_location("training_ours", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Innerloop


class FirstOrder(Autograd):
    def adapted(self, task, twice=True):
        return super().adapted(task, twice=not twice)


class Longer(Autograd):
    def prepare(self):
        self.workload = Workload(*(WORKLOAD.name, WORKLOAD.image, 1, WORKLOAD.steps + 1, WORKLOAD.tasks))


class Transductive(Autograd):
    def backward(self, batch):
        def forward(norm, x):
            return F.batch_norm(x, None, None, norm.weight, norm.bias, training=True)

        with patch.object(SupportNorm, "forward", forward):
            return super().backward(batch)


@pytest.mark.parametrize("kind", [ours, lambda: Autograd, lambda: ChannelsLast, lambda: Vmap])
def test_sides_compute_the_same(right, kind):
    weights, batch, loss, gradient = right
    side = kind()(WORKLOAD, torch.get_num_threads(), 1)
    side.restart(weights)
    found_loss, found = side.gradient(batch)
    assert found_loss == pytest.approx(loss, rel=LOSS_TOLERANCE)
    assert found.keys() == gradient.keys()
    assert difference(found, gradient) < TOLERANCE
    assert side.step(batch) == pytest.approx(loss, rel=LOSS_TOLERANCE)
    moved = side.weights()
    assert all(not np.array_equal(moved[name], weights[name]) for name in ("conv0.weight", "head.weight"))


@pytest.mark.parametrize("kind", [FirstOrder, Longer, Transductive])
def test_a_side_that_computes_something_else_is_noticed(right, kind):
    weights, batch, loss, gradient = right
    side = kind(WORKLOAD, torch.get_num_threads(), 1)
    side.restart(weights)
    found_loss, found = side.gradient(batch)
    assert abs(found_loss / loss - 1) > LOSS_TOLERANCE or difference(found, gradient) > 3 * TOLERANCE


@pytest.fixture
def fake(tmp_path):
    def write(fails: str = "") -> SideSpec:
        file = tmp_path / "fake.py"
        file.write_text(FAKE.format(folder=str(Path(sys.modules["by_turns"].__file__).parent), fails=fails))
        return SideSpec("Fake", (str(file),), threads=1)

    return write


def test_a_side_is_a_process_that_is_asked_and_stopped(fake, tmp_path):
    measuring, others = Measuring(WORKLOAD, tmp_path / "workload"), psutil.Process().children()
    with ExitStack() as stack:
        figures = measuring.start(stack, fake(), Path(sys.executable))
        assert "computes something else" in figures["failed"]
        children = set(psutil.Process().children()) - set(others)
        assert children
    assert not any(child.is_running() for child in children)


def test_a_side_takes_its_turns_and_begins_anew(fake, tmp_path):
    Measuring(WORKLOAD, tmp_path / "workload")
    process = SideProcess(fake(), Path(sys.executable), tmp_path / "workload")
    try:
        assert process.step(1).loss == 0.5
        assert process.weights()["head.bias"].tolist() == [2.0] * 5
        process.restart()
        assert process.weights()["head.bias"].tolist() == [0.0] * 5
        assert process.peak_bytes() > 1e6
    finally:
        process.stop()


def test_a_slow_side_rests_and_the_race_ends_at_the_target(fake, tmp_path):
    found = iter([0.1, 0.9])
    with (
        ExitStack() as stack,
        patch("by_turns.right_gradient", lambda *given: (1.0, given[1])),
        patch("by_turns.accuracy", lambda *_: next(found)),
        patch("by_turns.TURN_SECONDS", 0.0),
    ):
        measuring = Measuring(WORKLOAD, tmp_path / "workload")
        figures = {"Fake": measuring.start(stack, fake(), Path(sys.executable))}
        measuring.take_turns(3, figures)
        race = measuring.race(["Fake", "one that failed"], figures)
    assert [turn is None for turn in figures["Fake"]["turns"]] == [False, False, True]
    assert figures["Fake"]["gradient_difference"] == 0
    (state,) = race["sides"].values()
    assert (state["steps"], state["accuracy"]) == (2 * STEPS_BETWEEN, 0.9)
    assert state["seconds_to_target"] > figures["Fake"]["first_step_seconds"]


def test_what_a_side_failed_with_is_told(fake, tmp_path):
    Measuring(WORKLOAD, tmp_path / "workload")
    with pytest.raises(RuntimeError, match="Fake failed: ValueError: no such thing"):
        SideProcess(fake("raise ValueError('no such thing')"), Path(sys.executable), tmp_path / "workload")


def turns(*seconds: float | None, cpu: float = 1.0) -> list:
    return [None if each is None else {"seconds": each, "cpu_seconds": cpu, "loss": 0.0} for each in seconds]


def figures(rate: float, taken: list, counts: bool = True) -> dict:
    more = {"peak_bytes": 2e9, "first_step_seconds": 3.0}
    return {"counts": counts, "tasks_per_second": rate, "turns": taken, **more}


def test_the_ratio_is_that_of_rounds_in_which_both_took_their_turn():
    sides = {"a": figures(1, turns(2, 8, None)), OURS: figures(1, turns(1, 2, 5))}
    found = ratio(sides, "a", OURS, "seconds")
    assert found["times"] == pytest.approx(8**0.5)
    assert found["interval"][0] < found["times"] < found["interval"][1]


def test_our_better_way_is_compared_with_the_best_peer_of_as_many_threads():
    sides = {
        f"{OURS}, threads": figures(2, turns(2, 2)),
        f"{OURS}, workers": figures(4, turns(1, 1, cpu=0.5)),
        "a": figures(2, turns(2, 2)),
        "b": figures(1, turns(4, 4)),
        "a, one thread": figures(9, turns(0.1, 0.1), counts=False),
        "c": {"counts": True, "failed": "not installed"},
    }
    found = compare(sides)
    assert (found["ours"], found["best_peer"]) == (f"{OURS}, workers", "a")
    assert (found["times"]["times"], found["cpu_times"]["times"]) == pytest.approx((2, 2))
    assert found["times_each"] == pytest.approx({"a": 2, "b": 4})
    results = {"workloads": {"small": {"sides": sides, "comparison": found}}}
    assert "| Innerloop / best peer | 2.00 (2.00 to 2.00), 2.00 by processor time; a |" in markdown(results)
    assert "| c | failed |" in markdown(results)


def test_of_several_ways_the_fastest_goes_on():
    side = partial(SideSpec, program=("x.py",), threads=2)
    names = (f"{OURS}, threads", f"{OURS}, workers", "a, slow", "a, fast", "b", "broken")
    sides = [side(name) for name in names] + [side("a, one thread", counts=False)]
    measured = {name: figures(rate, []) for name, rate in zip(names, (1, 2, 3, 4, 5, 6), strict=True)}
    measured |= {"broken": {"counts": True, "failed": "not installed"}, "a, one thread": figures(9, [], counts=False)}
    kept = [each.name for each in fastest_ways(sides, measured)]
    assert kept == [f"{OURS}, threads", f"{OURS}, workers", "a, fast", "b", "a, one thread"]
