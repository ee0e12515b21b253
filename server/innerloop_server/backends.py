"""Chooses the library that computes each model."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

Backend = Literal["torch", "onnxruntime"]

NAMES: Mapping[str, Backend | None] = {"auto": None, "torch": "torch", "onnxruntime": "onnxruntime"}


@dataclass(frozen=True)
class Backends:
    """A choice of backends, each of which may be left open (None).

    Attributes:
        default: of models that `by_model` does not name.
        by_model: of single models.
    """

    default: Backend | None
    by_model: Mapping[str, Backend | None]

    def of(self, model: str) -> Backend:
        """The engine that computes a model."""
        return self.by_model.get(model, self.default) or what_is_installed()

    @property
    def needed(self) -> frozenset[Backend]:
        """All that may be asked for."""
        return frozenset(chosen or what_is_installed() for chosen in (self.default, *self.by_model.values()))


def parse_backends(text: str) -> Backends:
    """Read a choice, for example "onnxruntime", or "auto, birds=onnxruntime" for one of several models.

    Raises:
        ValueError: it makes no sense.
    """
    default: list[Backend | None] = []
    by_model: dict[str, Backend | None] = {}
    for entry in text.split(","):
        model, named, name = (part.strip() for part in entry.rpartition("="))
        if name not in NAMES or (named and not model):
            raise ValueError(f"is one of {', '.join(NAMES)}, or MODEL=BACKEND, not {entry.strip()!r}")
        if not named:
            default.append(NAMES[name])
        elif model in by_model:
            raise ValueError(f"names two backends for the model {model!r}")
        else:
            by_model[model] = NAMES[name]
    if len(default) > 1:
        raise ValueError("names two backends for all models; write MODEL=BACKEND for single ones")
    return Backends(default[0] if default else None, by_model)


def what_is_installed() -> Backend:
    """PyTorch where it is installed, otherwise ONNX Runtime."""
    return "torch" if find_spec("torch") else "onnxruntime"
