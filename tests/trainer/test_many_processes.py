"""Runs that several processes train: equal to one process, stopped and resumed by any number, and ended by one mistake.

Processes are real and joined by gloo. Networks are smooth and steps short, since steep ones amplify rounding.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from crew import Crew, crew_of
from runs import CPU, DIGITS, train, training

from innerloop_learner.bundle import load_bundle
from innerloop_trainer.config import ConfigError, TrainingConfig
from innerloop_trainer.parallel import Group, ProcessError, read_launch
from innerloop_trainer.runs.folder import RunFolder
from innerloop_trainer.runs.log import read_rows

SMOOTH = {"widths": [8, 8], "norm": "batch", "activation": "tanh"}
MLP = replace(
    DIGITS, method="protonet", meta_batch=5, train_ways=2, settings={}, backbone="mlp", backbone_settings=SMOOTH
)
MAML = replace(MLP, method="maml", settings={"rate": 0.1, "steps": 2})
TOLERANCE = {"rtol": 1e-4, "atol": 1e-6}
"""Parameters may differ by so much after twelve outer steps in single precision, since sums come in another order."""

CANCELLED = re.compile(r"linear\d\.bias|running_mean")
"""A bias before a batch norm, and the mean that takes it away again: its gradient is rounding, which Adam blows up."""


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    with crew_of(3, tmp_path_factory.mktemp("stores")) as crew:
        yield crew


def train_together(
    group: Group, config: TrainingConfig, path: Path, stop_at: int | None = None, resume: bool = False
) -> tuple[int, bool, list[float]]:
    """A run of which the last process is asked to stop; outer steps, whether it is finished, and all parameters."""
    run = training(config, path, resume=resume, group=group)
    last = group.rank == group.size - 1
    finished = run.run(lambda _: None, lambda: last and run.progress.iteration == stop_at)
    state = run._loop.params
    return run.progress.iteration, finished, torch.cat([state[name].flatten() for name in sorted(state)]).tolist()


def assert_close_runs(a: RunFolder, b: RunFolder) -> None:
    """Parameters, optimizer and figures are equal up to rounding; so are the best parameters."""
    (state, progress), (other, other_progress) = a.load_latest(CPU), b.load_latest(CPU)
    assert state.keys() == other.keys()
    for name in [name for name in state if name != "recent_figures" and not CANCELLED.search(name)]:
        torch.testing.assert_close(state[name], other[name], **TOLERANCE, msg=name)
    assert (progress.iteration, progress.best_iteration) == (other_progress.iteration, other_progress.best_iteration)
    rows, others = read_rows(a.log), read_rows(b.log)
    assert [row.iteration for row in rows] == [row.iteration for row in others]
    assert [row.loss for row in rows] == pytest.approx([row.loss for row in others], rel=1e-4)
    assert [row.training for row in rows] == pytest.approx([row.training for row in others])
    best, other_best = load_bundle(a.bundle).params, load_bundle(b.bundle).params
    for name in [name for name in best if not CANCELLED.search(name)]:
        torch.testing.assert_close(best[name], other_best[name], **TOLERANCE, msg=name)


@pytest.mark.parametrize(
    ("config", "size"),
    [pytest.param(MLP, 2, marks=pytest.mark.slow), (MAML, 3), (replace(MAML, recompute=True), 2)],
    ids=["protonet", "maml", "maml, recomputed"],
)
def test_several_processes_train_what_one_trains(config: TrainingConfig, size: int, crew: Crew, tmp_path: Path) -> None:
    results = crew.do(size, train_together, config, tmp_path / "together")
    assert all(result == results[0] for result in results), "processes have other parameters"
    assert results[0][:2] == (12, True)
    alone = train(replace(config, recompute=False), tmp_path / "alone")
    assert_close_runs(alone, RunFolder(tmp_path / "together"))


def test_a_run_goes_on_with_another_number_of_processes(crew: Crew, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    for size, stop_at in ((3, 4), (2, 8)):
        results = crew.do(size, train_together, MAML, folder.path, stop_at, size < 3)
        assert [result[:2] for result in results] == [(stop_at, False)] * size
        assert folder.load_latest(CPU)[1].iteration == stop_at
    train(MAML, folder.path, resume=True)
    assert_close_runs(train(MAML, tmp_path / "whole"), folder)


def with_other_data(group: Group, path: Path) -> str:
    config = MLP if group.leads else replace(MLP, seed=1)
    return train_together(group, config, path)[0] and "trained"


def test_processes_with_other_settings_train_nothing_together(crew: Crew, tmp_path: Path) -> None:
    results = crew.do(2, with_other_data, tmp_path)
    assert all(result.startswith("ProcessError") for result in results)
    assert "process 1 of 2: this process has other settings or other data than the first one" in results[0]


def with_a_mistake(group: Group, rank: int) -> tuple[str, bool]:
    try:
        with group.together():
            if group.rank == rank:
                raise ConfigError("there is no such thing")
    except (ConfigError, ProcessError) as error:
        return f"{type(error).__name__}: {error}", getattr(error, "leads", True)
    return "went well", True


def test_a_mistake_of_one_process_ends_all_and_the_first_process_tells_it(crew: Crew) -> None:
    assert crew.do(3, with_a_mistake, 3) == [("went well", True)] * 3
    assert crew.do(2, with_a_mistake, 0)[0] == ("ConfigError: there is no such thing", True)
    told, *others = crew.do(3, with_a_mistake, 2)
    assert told == ("ProcessError: process 2 of 3: there is no such thing", True)
    assert [leads for _, leads in others] == [False, False]


def test_what_torchrun_tells_is_read() -> None:
    assert read_launch({"RANK": "1"}).size == 1
    told = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "a"}
    launch = read_launch({**told, "MASTER_PORT": "1", "TORCHELASTIC_RESTART_COUNT": "2"})
    assert (launch.rank, launch.size, launch.local_rank, launch.restarts) == (3, 4, 1, 2)
    assert launch.device("cpu").type == "cpu"


def test_restarts_that_could_not_find_each_other_are_refused_at_the_start() -> None:
    told = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1", "TORCHELASTIC_MAX_RESTARTS": "1"}
    assert not read_launch({**told, "TORCHELASTIC_USE_AGENT_STORE": "False"}).restarts_in_vain
    launch = read_launch({**told, "TORCHELASTIC_USE_AGENT_STORE": "True"})
    with pytest.raises(ConfigError, match="set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"), launch.group(CPU):
        pass


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
COMMAND = [
    *("-m", "innerloop_command", "train", "protonet", "--data", "digits", "--ways", "2", "--queries", "3"),
    *("--meta-batch", "4", "--train-ways", "2", "--validation-episodes", "4", "--test-episodes", "4"),
    *("--calibration-episodes", "0", "--backbone", "mlp", "--backbone-set", "widths=[8]", "--device", "cpu"),
    *("--validate-every", "50", "--no-report"),
]


def start(folder: RunFolder, iterations: int, *of_torchrun: str) -> subprocess.Popen[str]:
    command = [*TORCHRUN, *of_torchrun, *COMMAND, "--iterations", str(iterations), "--out", str(folder.path)]
    environment = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def wait_for_rows(process: subprocess.Popen[str], folder: RunFolder, count: int) -> None:
    deadline = time.monotonic() + 200
    while len(read_rows(folder.log)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "too slow"
        time.sleep(0.01)


def children(parent: int) -> list[int]:
    """Processes that another one has started, by the kernel's list."""
    return [int(number) for number in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1], ids=["the first", "another"])
def test_a_killed_process_costs_steps_since_the_last_checkpoint_and_none_is_lost_or_doubled(
    victim: int, tmp_path: Path
) -> None:
    whole, killed = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "killed")
    process = start(killed, 1500, "--max-restarts", "1")
    wait_for_rows(process, killed, 2)
    os.kill(sorted(children(process.pid))[victim], signal.SIGKILL)
    output, _ = process.communicate(timeout=250)
    assert process.returncode == 0, output
    process = start(whole, 1500)
    output, _ = process.communicate(timeout=250)
    assert process.returncode == 0, output
    (state, progress), (expected, _) = killed.load_latest(CPU), whole.load_latest(CPU)
    assert progress.iteration == 1500
    for name in expected.keys() - {"recent_figures"}:
        assert torch.equal(state[name], expected[name]), name
    assert [(row.iteration, row.loss, row.validation) for row in read_rows(killed.log)] == [
        (row.iteration, row.loss, row.validation) for row in read_rows(whole.log)
    ]


@pytest.mark.slow
def test_a_signal_to_torchrun_saves_once_and_all_leave(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    process = start(folder, 1_000_000)
    wait_for_rows(process, folder, 1)
    ranks = children(process.pid)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=100)
    assert output.count("Stopped; everything is saved.") == 1
    assert folder.load_latest(CPU)[1].iteration >= 50  # the row that was waited for is that of step 50
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)


@pytest.mark.slow
def test_a_mistake_under_torchrun_is_told_once(tmp_path: Path) -> None:
    process = start(RunFolder(tmp_path / "run"), 10)
    process.communicate(timeout=200)
    again = start(RunFolder(tmp_path / "run"), 10)
    output, _ = again.communicate(timeout=200)
    assert len(re.findall(r"(?m)^Error: ", output)) == 1
    assert "holds a run already; continue it with --resume" in output
    assert output.count("Traceback") == 1, "torchrun's own"
