"""Worker processes on a CPU: the same estimate as without, chosen by what is faster, and none is missed that ends."""

import errno
import os
import signal
from dataclasses import replace
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import Case, wave_case
from estimates import assert_same
from runs import DIGITS, training

from innerloop_learner.objectives import Stage
from innerloop_trainer.cli.train import read_workers
from innerloop_trainer.config import ConfigError, Precision
from innerloop_trainer.outer_loop import Estimator, build_estimator
from innerloop_trainer.parallel import Launch, ThreadsOrWorkers, choice

WAVES = wave_case("maml", [6], {"steps": 2, "rate": 0.05})
ITERATIONS = 1000


def estimator(case: Case = WAVES, name: str = "backpropagation", **settings: Any) -> Estimator:
    return build_estimator(name, case.objective, settings)


def assert_steps_equal(divided: ThreadsOrWorkers, plain: Estimator, steps: int) -> None:
    params, carried, expected = WAVES.params(), divided.start(WAVES.params()), plain.start(WAVES.params())
    for step in range(steps):
        episodes, stage = WAVES.episodes(tasks=5, seed=step), Stage(step / ITERATIONS, seed=step)
        found = divided.estimate(params, carried, episodes, stage)
        whole = plain.estimate(params, expected, episodes, stage)
        assert_same(found, whole)
        carried, expected = found.carried, whole.carried


def test_workers_give_what_one_process_gives_and_one_that_is_killed_costs_nothing() -> None:
    plain = estimator()
    divided = ThreadsOrWorkers(plain, 5, ITERATIONS, 3)
    try:
        assert_steps_equal(divided, plain, 3)
        assert divided.take_notice() is None
        assert divided._workers is not None
        victim = divided._workers._processes[1].pid
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
        assert_steps_equal(divided, plain, 2)
        notice = divided.take_notice()
        assert notice is not None
        assert "a worker process of this run was ended by signal 9" in notice
        assert notice.endswith("this process goes on alone")
        assert divided.take_notice() is None
    finally:
        divided.close()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_workers_recompute_inner_steps(precision: Precision, tmp_path: Path) -> None:
    config = replace(DIGITS, precision=precision, backbone_settings={"width": 8, "norm": "task"})
    kept, again = (training(replace(config, recompute=wanted), tmp_path).plan for wanted in (False, True))
    params = kept.init(torch.Generator().manual_seed(0))
    episodes = kept.source.train.sample(kept.episodes, 2, torch.Generator().manual_seed(0))
    divided = ThreadsOrWorkers(again.estimator, 2, ITERATIONS, 2)
    try:
        found = divided.estimate(params, divided.start(params), episodes, Stage(seed=1))
        assert divided.take_notice() is None
    finally:
        divided.close()
    expected = kept.estimator.estimate(params, {}, episodes, Stage(seed=1))
    ours, whole = (torch.cat([value.flatten() for value in of.gradients.values()]) for of in (found, expected))
    assert (ours - whole).norm() < 1e-4 * whole.norm()


def test_what_is_faster_is_found_in_the_first_steps_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(choice, "WORTH_SECONDS", 0.0)
    plain, steps, notice = estimator(), 0, None
    divided = ThreadsOrWorkers(plain, 5, ITERATIONS, None)
    try:
        while notice is None:
            assert_steps_equal(divided, plain, 1)
            notice = divided.take_notice()
            steps += 1
            assert steps < 100_000
    finally:
        divided.close()
    # Work of a millisecond is never worth a message to another process.
    assert "2 worker processes of one thread: " in notice
    assert notice.count("tasks/s") == 2
    assert notice.endswith("goes on with threads")
    assert divided._workers is None


@pytest.mark.parametrize("seconds", [0.02, 0.005], ids=["as long", "faster"])
def test_the_faster_way_is_chosen_by_its_median(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    divided = ThreadsOrWorkers(estimator(), 4, ITERATIONS, None)
    divided._workers = object()  # type: ignore[assignment]
    monkeypatch.setattr(ThreadsOrWorkers, "close", lambda _: None)
    divided._seconds = {"threads": [9.0, 0.02, 0.02, 5.0], "workers": [9.0, seconds, seconds, 5.0]}
    divided._compare(4, Stage(0.0))
    assert divided._chosen == ("workers" if seconds < 0.02 else "threads")


def test_short_runs_single_threads_and_estimators_of_whole_batches_never_start_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    persistent = wave_case("lstm-optimizer", [3], {"steps": 4, "hidden": 2})
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    for divided in (
        ThreadsOrWorkers(estimator(), 5, 10, None),
        ThreadsOrWorkers(estimator(), 1, 10**9, None),
        ThreadsOrWorkers(estimator(persistent, "pes"), 5, 10**9, None),
    ):
        if divided._chosen is None:
            assert_steps_equal(divided, estimator(), 3)
        assert divided._chosen == "threads"
        assert divided._workers is None


@pytest.mark.parametrize("workers", [3, None], ids=["asked for", "tried"])
def test_a_run_goes_on_alone_where_no_worker_can_start(workers: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def start(process: ForkServerProcess) -> None:
        if started:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        started.append(process)
        process_start(process)

    process_start = ForkServerProcess.start
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(choice, "WORTH_SECONDS", 0.0)
    monkeypatch.setattr(ForkServerProcess, "start", start)
    plain = estimator()
    divided = ThreadsOrWorkers(plain, 5, ITERATIONS, workers)
    assert_steps_equal(divided, plain, 3)
    notice = divided.take_notice()
    assert notice is not None
    assert "worker processes can't be started" in notice
    assert divided._chosen == "threads"
    assert not started[0].is_alive()


def test_workers_that_can_not_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="6 processes can't divide the tasks of an outer step, of which there are 5"):
        ThreadsOrWorkers(estimator(), 5, 10, 6)
    for text in ("0", "-1", "two", "1.5", ""):
        with pytest.raises(ConfigError, match="--workers is auto or a number from 1 on"):
            read_workers(text, Launch())
    with pytest.raises(ConfigError, match="torchrun has started processes already"):
        read_workers("2", replace(Launch(), size=2))
    assert [read_workers("auto", Launch()), read_workers("4", Launch())] == [None, 4]
