"""A training run on disk: configuration, checkpoints and logs. No pickle anywhere."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from innerloop_trainer.config import TrainingConfig


class RunError(ValueError):
    """A run folder that can't be used; the message says why and what to do."""


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes:
        iteration: outer steps taken.
        seconds: spent training, over all sittings.
        best_iteration: of the best validation so far; zero before the first.
        best_value: its accuracy, or mean squared error.
    """

    iteration: int = 0
    seconds: float = 0.0
    best_iteration: int = 0
    best_value: float | None = None


class RunFolder:
    """Files of one run.

    Args:
        path: the folder, made when something is saved.

    Attributes:
        path: the folder.
        log: one row per validation, CSV.
        tensorboard: the same for TensorBoard.
        curve: the same as a picture.
        bundle: the parameters of the best validation so far, ready to serve.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "log.csv"
        self.tensorboard = path / "tensorboard"
        self.curve = path / "learning_curve.png"
        self.bundle = path / "bundle"
        self._config = path / "config.json"
        self._latest = path / "latest.safetensors"

    @property
    def exists(self) -> bool:
        """Whether a run was started here."""
        return self._config.is_file()

    def save_config(self, config: TrainingConfig) -> None:
        """Record what the run was asked to do."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._config.write_text(json.dumps(config.to_json(), indent=2) + "\n")

    def load_config(self) -> TrainingConfig:
        """What the run was asked to do.

        Raises:
            RunError: there is no run here, or its configuration is damaged.
        """
        try:
            return TrainingConfig(**json.loads(self._config.read_text()))
        except FileNotFoundError as error:
            raise RunError(f"{self.path} holds no training run") from error
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"{self._config} can't be read ({error}); train again into another folder") from error

    def save_latest(self, state: Mapping[str, Tensor], progress: Progress) -> None:
        """Save everything needed to resume, replacing what was there at once or not at all."""
        _save(self._latest, state, asdict(progress))

    def load_latest(self, device: torch.device) -> tuple[dict[str, Tensor], Progress]:
        """What `save_latest` saved last.

        Raises:
            RunError: nothing was saved, or it is damaged.
        """
        state, progress = _load(self._latest, device)
        return state, Progress(**progress)


def _save(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".partial")
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, scratch, metadata={"progress": json.dumps(metadata)})
    os.replace(scratch, path)  # noqa: PTH105 - atomic


def _load(path: Path, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            return tensors, json.loads(file.metadata()["progress"])
    except FileNotFoundError as error:
        raise RunError(f"{path.parent} has no {path.name} yet; train it first") from error
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} is damaged ({error}); train again into another folder") from error
