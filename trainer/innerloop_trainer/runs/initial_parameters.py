"""Starting from parameters that were trained before."""

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
    """Parameters that training can't start from; the message says why and what to do."""


@dataclass(frozen=True)
class InitialParameters:
    """Parameters to start from.

    Attributes:
        name: of the file or folder, without its path.
        digest: SHA-256 of the bundle or file.
        params: by name.
        classes: what the bundle keeps of the classes that it was trained on and chosen by; nothing for a file.
    """

    name: str
    digest: str
    params: Params
    classes: Mapping[str, str] = field(default_factory=dict)

    @property
    def record(self) -> str:
        """What a run's configuration keeps of them."""
        return f"sha256:{self.digest}"


@dataclass(frozen=True)
class Start:
    """Parameters of a learner, some of them given.

    Attributes:
        name: of the file or folder that they were given in.
        params: all of them.
        taken: names of those that were given.
        fresh: names of the others.
    """

    name: str
    params: Params
    taken: Sequence[str]
    fresh: Sequence[str]


def read_initial_parameters(path: Path) -> InitialParameters:
    """Parameters of a bundle, of a run's bundle, or of a safetensors file.

    Raises:
        BundleError, RunError: a bundle or run that can't be used.
        InitialParametersError: a file that is missing or not in that format.
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
    """Fresh parameters of a learner, those that were given in their place.

    A given tensor is taken where name and shape agree, or where the learner has the same once for every inner step, in
    rows. Whatever is not given stays fresh, as the head of a new number of ways.

    Raises:
        InitialParametersError: nothing of the learner's backbone was given.
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
