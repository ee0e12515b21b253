"""A training run on disk: configuration, checkpoints and logs. No pickle anywhere."""

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from innerloop_learner.disk import replace_file
from innerloop_learner.manifest import MANIFEST, BundleError
from innerloop_trainer.config import TrainingConfig
from innerloop_trainer.runs.classes import RunClasses

FORMER = re.compile(r"step-(\d{8,})\.safetensors")
"""Names of the files of checkpoints before the latest, by the number of outer steps."""


class RunError(ValueError):
    """A run folder can't be used; the message says why and what to do."""


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes:
        iteration: number of outer steps taken.
        seconds: time spent training in seconds, interruptions left out.
        best_iteration: outer steps before the best validation so far; zero before the first validation.
        best_value: accuracy, or mean squared error, of the best validation; None before the first.
    """

    iteration: int = 0
    seconds: float = 0.0
    best_iteration: int = 0
    best_value: float | None = None


class RunFolder:
    """Files of one run.

    Args:
        path: path of the folder, which is made when something is saved.

    Attributes:
        path: path of the folder.
        log: CSV file with one row per validation.
        tensorboard: folder with the same figures for TensorBoard.
        curve: picture of the same figures.
        recipe: recipe of the run with all defaults filled in, which makes the same run again.
        report: page on the model of a finished run.
        bundle: bundle of the parameters of the best validation so far, ready to serve.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "log.csv"
        self.tensorboard = path / "tensorboard"
        self.curve = path / "learning_curve.png"
        self.recipe = path / "recipe.toml"
        self.report = path / "report.html"
        self.bundle = path / "bundle"
        self._config = path / "config.json"
        self._classes = path / "classes.json"
        self._latest = path / "latest.safetensors"
        self._former = path / "checkpoints"

    @property
    def exists(self) -> bool:
        """Whether a run was started here."""
        return self._config.is_file()

    def check(self, *, resume: bool) -> None:
        """Check early that a new run can start here, or that the run that is here can be resumed.

        Raises:
            RunError: the folder holds a run that was not to be resumed, no run to resume, or other files.
        """
        if resume and not self.exists:
            raise RunError(f"{self.path} holds no training run; leave --resume out to start one")
        # A run that ended before anything was saved may begin again: there is nothing to lose.
        if not resume and self.exists and (self._latest.exists() or self.bundle.exists()):
            raise RunError(f"{self.path} holds a run already; continue it with --resume, or name another folder")
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path} is a file; name a folder")
        if not resume and not self.exists and self.path.is_dir() and any(self.path.iterdir()):
            raise RunError(f"{self.path} holds other files; name a folder that is empty or not there yet")

    def save_config(self, config: TrainingConfig) -> None:
        """Record the configuration of the run."""
        replace_file(self._config, (json.dumps(config.to_json(), indent=2) + "\n").encode())

    def save_classes(self, classes: RunClasses) -> None:
        """Record the classes that the run is trained, validated and tested on."""
        replace_file(self._classes, (json.dumps(classes, indent=2, ensure_ascii=False) + "\n").encode())

    def load_classes(self) -> RunClasses:
        """The recorded classes; none if the run recorded none.

        Raises:
            RunError: the record is damaged.
        """
        try:
            classes = json.loads(self._classes.read_bytes())
            return {split: dict(digests) for split, digests in classes.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise RunError(f"{self._classes} can't be read ({error}); train again into another folder") from error

    def load_config(self) -> TrainingConfig:
        """Read the configuration of the run.

        Raises:
            RunError: there is no run here, or its configuration is damaged.
        """
        try:
            return TrainingConfig(**json.loads(self._config.read_text()))
        except FileNotFoundError as error:
            raise RunError(f"{self.path} holds no training run") from error
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"{self._config} can't be read ({error}); train again into another folder") from error

    def save_latest(self, state: Mapping[str, Tensor], progress: Progress, *, keep: int = 1) -> None:
        """Save everything needed to resume. The former checkpoint is replaced as a whole, or stays if that fails.

        Args:
            state: tensors by name.
            progress: how far the run has come.
            keep: number of checkpoints to keep, the latest among them. Those before it go to the folder `checkpoints`,
                in which files of other names are left alone.

        Raises:
            OSError: it can't be written.
        """
        self._keep_former(keep - 1, progress.iteration)
        replace_file(self._latest, serialised(state, progress))

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is something to resume from."""
        return self.exists and self._latest.is_file()

    def _keep_former(self, count: int, iteration: int) -> None:
        """Give the latest checkpoint a second name, and remove all but some of those that have one."""
        if count and self._latest.is_file():
            before = self._steps_of_latest()
            if before is not None and before != iteration:
                self._former.mkdir(exist_ok=True)
                name = self._former / f"step-{before:08}.safetensors"
                name.unlink(missing_ok=True)
                try:
                    os.link(self._latest, name)
                except OSError:  # a file system without links
                    replace_file(name, self._latest.read_bytes())
        for path in self._former_checkpoints()[: -count or None]:
            path.unlink(missing_ok=True)
        with suppress(OSError):  # there is none, or something of the user's in it
            self._former.rmdir()

    def _former_checkpoints(self) -> list[Path]:
        """Checkpoints before the latest, the oldest first."""
        files = self._former.iterdir() if self._former.is_dir() else ()
        return sorted((file for file in files if FORMER.fullmatch(file.name)), key=lambda file: int(file.stem[5:]))

    def _steps_of_latest(self) -> int | None:
        """Outer steps before the latest checkpoint; None if it can't be read."""
        try:
            with safe_open(self._latest, framework="pt") as file:
                return int(json.loads(file.metadata()["progress"])["iteration"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return None

    def load_latest(self, device: torch.device) -> tuple[dict[str, Tensor], Progress]:
        """Load the checkpoint that `save_latest` saved last.

        Raises:
            RunError: nothing was saved, or it is damaged.
        """
        try:
            with safe_open(self._latest, framework="pt", device=str(device)) as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
                return tensors, Progress(**json.loads(file.metadata()["progress"]))
        except FileNotFoundError as error:
            raise RunError(f"{self.path} was stopped before anything was saved; remove it and train again") from error
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            former = self._former_checkpoints()
            way_out = f"copy {former[-1]} over it to go on from there" if former else "train again into another folder"
            raise RunError(f"{self._latest} is damaged ({error}); {way_out}") from error


def serialised(state: Mapping[str, Tensor], progress: Progress) -> bytes:
    """The content of a checkpoint."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    return save(tensors, {"progress": json.dumps(asdict(progress))})


def deserialised(content: bytes) -> tuple[dict[str, Tensor], Progress]:
    """Reverse `serialised`."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    return load(content), Progress(**json.loads(header["__metadata__"]["progress"]))


def find_bundle(path: Path) -> Path:
    """The path of the bundle at `path`, or of the bundle of the run at `path`.

    Raises:
        BundleError: `path` is neither a bundle nor a run.
        RunError: the run has no bundle yet.
    """
    if (path / MANIFEST).is_file():
        return path
    run = RunFolder(path)
    if not run.exists:
        raise BundleError(f"{path} is neither a bundle nor a training run")
    if not run.bundle.is_dir():
        raise RunError(f"{path} has no bundle yet, since nothing was validated; train on with --resume")
    return run.bundle
