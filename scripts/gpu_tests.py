"""Run the tests that a GPU changes, in stages of less than nine minutes, and sum up: `make test-gpu [STAGE=NAME]`.

Without a GPU the script prints what it would run. A stage is a list of pytest's arguments, or of shortened benchmarks:
their figures mean little, but show that they run and that their answers agree. Servers choose the GPU by themselves.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAGE_SECONDS = 540
"""Most seconds of a stage; one that takes longer is ended and has failed."""
NO_TESTS = 5
"""Exit code of pytest when all tests were deselected."""

SERVER = "tests/server"
E2E = "tests/e2e"
TESTS = {
    "conformance": ["-m", "cuda", "tests/learner", "tests/trainer"],
    "learner": [
        f"tests/learner/test_{name}.py"
        for name in ("fused_blocks", "meta_gradient", "layers", "closed_form_heads", "encoders", "bundle")
    ],
    "training": [
        f"tests/trainer/test_{name}.py" for name in ("training", "every_method", "evaluation", "encoded_training")
    ],
    "engine": [
        f"{SERVER}/test_{name}.py"
        for name in ("torch_engine", "captured_programs", "worker", "lanes", "scheduler", "padding", "backends_agree")
    ],
    "states": [
        *(
            f"{SERVER}/test_{name}.py"
            for name in ("state_memory", "state_copies", "state_layout", "state_bytes", "keeper")
        ),
        f"{E2E}/test_memory.py",
    ],
    "onnx": [f"{SERVER}/test_onnx_engine.py", f"{E2E}/test_backends.py", f"{E2E}/test_encoded_models.py"],
    "servers": [
        f"{E2E}/test_{name}.py"
        for name in ("methods", "concurrency", "adaptation_service", "models", "metrics", "pressure", "bench")
    ],
    "front-ends": [f"{E2E}/test_{name}.py" for name in ("front_ends", "life", "stream_predict", "sdk_and_server")],
}
BENCHMARKS = {
    "bench-engine": [
        ["benchmarks/engine/run.py", "--device", "cuda", "--seconds", "1", "--out", "{folder}/engine.json"],
    ],
    "bench-onnx": [
        ["benchmarks/onnx/run.py", "--device", "cuda", "--rounds", "3", "--out", "{folder}/onnx.json"],
    ],
}
STAGES = [*TESTS, *BENCHMARKS]


@dataclass
class Outcome:
    """The result of a stage.

    Attributes:
        stage: name of the stage.
        passed: number of tests or benchmarks that passed.
        failed: number of tests or benchmarks that failed, those that ended in an error included.
        skipped: number of tests that were skipped.
        seconds: time that the stage took, in seconds.
        failures: names of the tests or benchmarks that failed, or the reason why the stage was ended.
    """

    stage: str
    passed: int
    failed: int
    skipped: int
    seconds: float
    failures: list[str]


def commands(stage: str, folder: str) -> list[list[str]]:
    """The commands of a stage, which write their results to a folder."""
    if stage in TESTS:
        options = ["-m", "pytest", "-q", "-n", "4", "--dist", "worksteal", "--junit-xml", f"{folder}/report.xml"]
        options += ["-m", "not slow"]  # pytest takes the last -m
        return [[sys.executable, *options, *TESTS[stage]]]
    return [[sys.executable, *(word.format(folder=folder) for word in command)] for command in BENCHMARKS[stage]]


def run_stage(stage: str) -> Outcome:
    """Run one stage, its output shown as it comes."""
    started, failures, passed, failed, skipped = time.monotonic(), [], 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for command in commands(stage, folder):
            left = STAGE_SECONDS - (time.monotonic() - started)
            reason = _run(command, max(left, 1))
            if stage in BENCHMARKS:
                passed, failed = passed + (not reason), failed + bool(reason)
            elif (report := Path(folder) / "report.xml").is_file():
                passed, failed, skipped, names = _read(report)
                failures += names
                reason = "" if failed else reason
            if reason:
                failures.append(f"{' '.join(command[1:3])}: {reason}")
    failed = max(failed, bool(failures))
    return Outcome(stage, passed, failed, skipped, round(time.monotonic() - started, 1), failures)


def _run(command: Sequence[str], seconds: float) -> str:
    """Run a command; returns the reason why it failed, or nothing."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True) as process:
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its servers and workers, too
            return f"ended after {seconds:.0f} s"
    return "" if code in (0, NO_TESTS) else f"exit code {code}"


def _read(report: Path) -> tuple[int, int, int, list[str]]:
    """Read the numbers of tests that passed, failed and were skipped, and the names of those that failed."""
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    skipped = sum(case.find("skipped") is not None for case in cases)
    return len(cases) - len(failed) - skipped, len(failed), skipped, failed


def show(outcomes: Sequence[Outcome]) -> None:
    """Print the summary."""
    print(f"\n{'stage':14} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>8}")
    for outcome in outcomes:
        counts = f"{outcome.passed:7} {outcome.failed:7} {outcome.skipped:8} {outcome.seconds:8.1f}"
        print(f"{outcome.stage:14} {counts}")
    for outcome in outcomes:
        for failure in outcome.failures:
            print(f"failed in {outcome.stage}: {failure}")


def has_gpu() -> bool:
    """Whether PyTorch sees a GPU."""
    import torch

    return torch.cuda.is_available()


def main() -> int:
    """Run the stages that were asked for, and write a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"of {', '.join(STAGES)}; all if none is named")
    parser.add_argument("--json", type=Path, default=ROOT / ".pytest_cache" / "gpu.json", help="file of the summary")
    arguments = parser.parse_args()
    unknown = set(arguments.stages) - set(STAGES)
    if unknown:
        parser.error(f"there is no stage {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}")
    stages = arguments.stages or STAGES
    if not has_gpu():
        print("PyTorch sees no GPU here. On a machine with one, this would run:\n")
        for stage in stages:
            for command in commands(stage, "FOLDER"):
                print(f"{stage:14} python {' '.join(command[1:])}")
        return 0
    outcomes = []
    for stage in stages:
        print(f"\n=== {stage}", flush=True)
        outcomes.append(run_stage(stage))
        arguments.json.parent.mkdir(exist_ok=True)
        arguments.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=2) + "\n")
    show(outcomes)
    return int(any(outcome.failed for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
