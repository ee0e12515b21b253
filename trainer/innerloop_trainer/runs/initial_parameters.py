"""Starts training from parameters that were trained before (`innerloop train --init`)."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from innerloop_learner.bundle import load_bundle
from innerloop_learner.learner import Learner
from innerloop_learner.tasks import Params
from innerloop_trainer.runs.folder import find_bundle


class InitialParametersError(ValueError):
    """Training can't start from these parameters; the message says why and what to do."""


@dataclass(frozen=True)
class InitialParameters:
    """Parameters to start from, as read.

    Attributes:
        name: name of the file or folder, without its path.
        digest: SHA-256 of the bundle or file.
        params: the parameters by name.
        classes: digests of the classes that the bundle was trained and validated on, by split; empty for a
            safetensors file.
    """

    name: str
    digest: str
    params: Params
    classes: Mapping[str, str] = field(default_factory=dict)

    @property
    def record(self) -> str:
        """The text by which a run's configuration identifies them."""
        return f"sha256:{self.digest}"


@dataclass(frozen=True)
class Start:
    """A learner's parameters at the start of training, some of which were read.

    Attributes:
        name: name of the file or folder that they were read from.
        params: all parameters of the learner.
        taken: names of the parameters that were read.
        fresh: names of the parameters that are freshly drawn.
    """

    name: str
    params: Params
    taken: Sequence[str]
    fresh: Sequence[str]


def read_initial_parameters(path: Path) -> InitialParameters:
    """Read the parameters of a bundle, of a run's bundle, or of a safetensors file.

    Raises:
        BundleError, RunError: the bundle or run can't be used.
        InitialParametersError: the file is missing or is not in the safetensors format.
    """
    if path.is_dir():
        bundle = load_bundle(find_bundle(path))
        return InitialParameters(path.name, bundle.manifest.digest, bundle.params, bundle.manifest.provenance.classes)
    if not path.is_file():
        raise InitialParametersError(f"{path} does not exist; --init takes a bundle, a run or a safetensors file")
    content = path.read_bytes()
    try:
        params = load(content)
    except (SafetensorError, KeyError) as error:
        raise InitialParametersError(f"{path} is not a safetensors file ({error})") from error
    return InitialParameters(path.name, hashlib.sha256(content).hexdigest(), params)


def start_from(given: InitialParameters, learner: Learner, fresh: Params) -> Start:
    """Put given parameters in the place of a learner's fresh ones.

    A given tensor is taken if name and shape agree. It is repeated if the learner has one such tensor per inner step,
    as rows of a larger one. All other parameters stay fresh, such as a head for another number of classes.

    Raises:
        InitialParametersError: no parameter of the learner's backbone was given.
    """
    taken = {name: _fitted(given.params[name], value) for name, value in fresh.items() if name in given.params}
    params = {**fresh, **{name: value for name, value in taken.items() if value is not None}}
    names = [name for name, value in taken.items() if value is not None]
    backbone = learner.backbone.init(torch.Generator().manual_seed(0))
    if not backbone.keys() & set(names):
        name, value = next(iter(backbone.items()))
        found = f"of shape {list(given.params[name].shape)}" if name in given.params else "not there"
        raise InitialParametersError(
            f"nothing of {given.name} fits this backbone: {name} is {list(value.shape)} here and {found} in the file; "
            f"choose --backbone and --backbone-set as they were when it was trained"
        )
    return Start(given.name, params, names, [name for name in fresh if name not in names])


def _fitted(given: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor | None:
    if given.shape == fresh.shape:
        return given.to(fresh)
    if given.shape == fresh.shape[1:]:
        return given.to(fresh).expand_as(fresh).clone()
    return None
