"""Ctrl-C or a lost terminal in a real process: everything is saved, and the printed command continues to the bit."""

import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from runs import CPU
from shell import innerloop

from innerloop_trainer.cli.interrupts import INTERRUPTED, interruptible
from innerloop_trainer.runs.folder import RunFolder
from innerloop_trainer.runs.log import read_rows

INNERLOOP = [sys.executable, "-m", "innerloop_command"]
TRAIN = [
    *("train", "maml", "--data", "digits", "--ways", "2", "--queries", "3", "--steps", "2", "--set", "rate=0.01"),
    *("--iterations", "40", "--meta-batch", "2", "--validate-every", "4", "--validation-episodes", "4"),
    *("--test-episodes", "4", "--backbone-set", "width=8", "--no-report", "--device", "cpu", "--out"),
]


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*INNERLOOP, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_a_validation(process: subprocess.Popen[str], folder: RunFolder) -> None:
    deadline = time.monotonic() + 60
    while not read_rows(folder.log):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no validation in a minute"
        time.sleep(0.01)


def digest_of_parameters(folder: RunFolder) -> str:
    return json.loads((folder.bundle / "manifest.json").read_text())["files"]["parameters.safetensors"]


def test_ctrl_c_saves_and_says_how_to_resume_to_the_bit(tmp_path: Path) -> None:
    whole, stopped = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "stopped here")
    assert innerloop(*TRAIN, whole.path).status == 0
    process = start(*TRAIN, str(stopped.path))
    wait_for_a_validation(process, stopped)
    process.send_signal(signal.SIGINT)
    output, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "")
    _, _, command = output.partition("Stopped; everything is saved. Continue with:\n")
    program, *arguments = shlex.split(command)
    assert (program, arguments) == ("innerloop", [*TRAIN, str(stopped.path), "--resume"])
    assert 0 < len(read_rows(stopped.log)) < 10

    resumed = innerloop(*arguments)
    assert (resumed.status, resumed.error) == (0, "")
    assert "accuracy" in resumed.output
    assert [(row.iteration, row.loss, row.validation) for row in read_rows(stopped.log)] == [
        (row.iteration, row.loss, row.validation) for row in read_rows(whole.log)
    ]
    assert digest_of_parameters(stopped) == digest_of_parameters(whole)


@pytest.mark.slow
def test_a_terminal_that_goes_away_saves_too(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    terminal, end = os.openpty()

    def own_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    command = [*INNERLOOP, *TRAIN, str(folder.path), "--iterations", "100000", "--validate-every", "50000"]
    process = subprocess.Popen(command, stdin=end, stdout=end, stderr=end, preexec_fn=own_terminal)
    os.close(end)
    shown = b""
    while b"tasks/s" not in shown:
        shown += os.read(terminal, 4096)
    os.close(terminal)
    assert process.wait(timeout=60) == INTERRUPTED
    assert folder.load_latest(CPU)[1].iteration > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_signal_that_ends_programs_is_a_request_to_stop_and_one_that_was_ignored_still_is(number: int) -> None:
    with interruptible() as interrupted:
        assert not interrupted()
        signal.raise_signal(number)
        assert interrupted()
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with interruptible() as interrupted:
            signal.raise_signal(number)
            assert not interrupted()
    finally:
        signal.signal(number, before)


def test_a_second_ctrl_c_ends_the_program_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    # A validation after the first step that takes minutes: the first Ctrl-C waits for its end, the second does not.
    process = start(*TRAIN, str(folder.path), "--validate-every", "1", "--validation-episodes", "1000000")
    deadline = time.monotonic() + 60
    while not folder.exists:
        assert time.monotonic() < deadline, "training did not start in a minute"
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "Traceback" not in error
    assert folder.load_latest(CPU)[1].iteration == 0
