"""The sides of the comparison, and the process of each."""

import json
import os
import subprocess
import tarfile
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import psutil
from workload import Weights

HERE = Path(__file__).parent

OURS = "Innerloop"

LEARN2LEARN = "learn2learn==0.2.0"

KEPT_BYTES = str(2**30)
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": KEPT_BYTES, "MALLOC_TRIM_THRESHOLD_": KEPT_BYTES}
"""Has the C library keep freed memory, as `innerloop train` does by itself. Every side gets it: without it, plain
PyTorch loses a quarter of its time, and on some virtual machines nearly all of it, to page faults."""

COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}
"""Lets Python keep compiled modules. Without them a start takes seconds longer for a side whose packages pip did not
compile, as `make setup` does not."""

ON_DEMAND = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""Lets the sides share a GPU, of which JAX takes three quarters at its start otherwise."""

ON_GPU = {"replayed": ("--replay",), "not replayed": ()}
"""Our ways on a GPU, and their options."""

STOP_SECONDS = 20.0


@dataclass(frozen=True)
class SideSpec:
    """How a side is run.

    Attributes:
        name: as tables show it.
        program: its file and options.
        threads: threads inside operations of each process.
        processes: processes that divide the tasks.
        counts: whether it takes part in choosing the best peer; those with fewer threads don't.
    """

    name: str
    program: tuple[str, ...]
    threads: int
    processes: int = 1
    counts: bool = True

    @property
    def ours(self) -> bool:
        """Whether it is Innerloop."""
        return self.name.startswith(OURS)


def all_sides(cores: int, device: str) -> list[SideSpec]:
    """Every side, on a machine with this many cores, or on its GPU."""
    peers = {
        "torch.autograd": ("peers/by_autograd.py",),
        "torch.autograd, channels last": ("peers/by_autograd.py", "--channels-last"),
        "learn2learn": ("peers/by_learn2learn.py",),
        "higher": ("peers/by_higher.py",),
        "TorchOpt": ("peers/by_torchopt.py",),
        "torch.func.vmap": ("peers/by_vmap.py",),
        "parallel-metalearn, vmap": ("peers/by_parallel_metalearn.py",),
        "parallel-metalearn, sequential": ("peers/by_parallel_metalearn.py", "--sequential"),
        "JAX, vmap": ("peers/by_jax.py",),
        "JAX, sequential": ("peers/by_jax.py", "--sequential"),
    }
    if device == "cuda":
        ours = [SideSpec(f"{OURS}, {name}", ("ours.py", *options), cores) for name, options in ON_GPU.items()]
        return ours + [SideSpec(name, program, cores) for name, program in peers.items()]
    sides = [SideSpec(f"{OURS}, threads", ("ours.py",), cores)]
    if cores > 1:
        sides.append(SideSpec(f"{OURS}, workers", ("ours.py",), 1, cores))
    sides += [SideSpec(name, program, cores) for name, program in peers.items()]
    if cores > 1:
        sides.append(SideSpec(f"{OURS}, one thread", ("ours.py",), 1, counts=False))
        sides.append(SideSpec("torch.autograd, one thread", peers["torch.autograd"], 1, counts=False))
    return sides


@dataclass(frozen=True)
class Turn:
    """What an outer step took.

    Attributes:
        seconds: time on the clock.
        cpu_seconds: time of all processors.
        loss: mean loss of the queries before the step.
    """

    seconds: float
    cpu_seconds: float
    loss: float


class SideProcess:
    """A side that runs until `stop`.

    Args:
        spec: how it is run.
        python: Python of its environment.
        folder: folder of the workload.

    Attributes:
        first_step_seconds: from the start of the process to the end of its first outer step.
    """

    def __init__(self, spec: SideSpec, python: Path, folder: Path) -> None:
        self.spec = spec
        command = [python, HERE / spec.program[0], *spec.program[1:], folder]
        options = ["--threads", spec.threads, "--processes", spec.processes]
        began = perf_counter()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - `stop` closes it
        self._process = psutil.Popen(
            [str(word) for word in [*command, *options]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **ALLOCATOR, **COMPILED, **ON_DEMAND, "OMP_NUM_THREADS": str(spec.threads)},
        )
        try:
            self.step(0)
        except BaseException:
            self.stop()
            raise
        self.first_step_seconds = perf_counter() - began

    def step(self, number: int) -> Turn:
        """Take an outer step on the batch of this number."""
        before = self._cpu_seconds()
        answer = self._ask(do="step", step=number)
        return Turn(answer["seconds"], self._cpu_seconds() - before, answer["loss"])

    def gradient(self, number: int) -> tuple[float, Weights]:
        """The mean loss and the meta-gradient of a batch at the present weights."""
        answer, gradient = self._arrays(do="gradient", step=number)
        return answer["loss"], gradient

    def weights(self) -> Weights:
        """The present weights."""
        return self._arrays(do="weights")[1]

    def restart(self) -> None:
        """Begin anew with the initial weights."""
        self._ask(do="restart")

    def peak_bytes(self) -> int:
        """The most memory that was in use on a GPU, or else resident, added up over its processes."""
        of_device: int = self._ask(do="memory")["bytes"]
        return of_device or sum(_peak_bytes(process.pid) for process in self._processes())

    def stop(self) -> None:
        """End it and its workers."""
        started = self._processes()
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        for process in psutil.wait_procs(started, STOP_SECONDS)[1]:
            process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _arrays(self, **asked: Any) -> tuple[dict[str, Any], Weights]:
        with tempfile.TemporaryDirectory() as folder:
            file = f"{folder}/arrays.npz"
            answer = self._ask(**asked, file=file)
            with np.load(file) as arrays:
                return answer, dict(arrays)

    def _ask(self, **asked: Any) -> dict[str, Any]:
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            text = self._errors.read().decode(errors="replace").strip()
            raise RuntimeError(f"{self.spec.name} failed: {text.splitlines()[-1] if text else 'without a word'}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _processes(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return [self._process, *self._process.children(recursive=True)]
        return []

    def _cpu_seconds(self) -> float:
        times = [process.cpu_times() for process in self._processes()]
        return sum(time.user + time.system for time in times)


def _peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(peak) * 1024


def unpack_learn2learn(python: Path) -> None:
    """Put the sources of learn2learn into the environment of the peers, where it does not build."""
    environment = python.parent.parent
    if (environment / "learn2learn").exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        download = [python, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "learn2learn"]
        subprocess.run([*download, "--dest", folder, LEARN2LEARN], check=True)
        (archive,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(archive) as file:
            members = [member for member in file.getmembers() if "/learn2learn/" in member.name]
            for member in members:
                member.name = member.name.partition("/")[2]
            file.extractall(environment, members, filter="data")
