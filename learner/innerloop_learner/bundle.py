"""Bundles: an exported learner on disk, `manifest.json` beside `parameters.safetensors`.

A bundle is data only: nothing in it is executed or unpickled. The manifest carries a SHA-256 of every file and one of
itself, so that a truncated or altered bundle is refused with a reason instead of answering wrongly.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from innerloop_learner.disk import replace_folder
from innerloop_learner.learner import Learner, build_learner
from innerloop_learner.settings import with_settings
from innerloop_learner.spec import LearnerSpec
from innerloop_learner.tasks import Params

FORMAT = "innerloop-bundle"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
PARAMETERS = "parameters.safetensors"


class BundleError(ValueError):
    """A bundle that can't be used; the message says why and what to do."""


@dataclass(frozen=True)
class TaskLimits:
    """What a bundle's tasks may look like.

    Attributes:
        trained_ways, trained_shots, trained_steps: the tasks it was trained for; zero where the word does not apply.
        max_ways: most classes a request may have (zero for regression).
        max_steps: most inner steps a request may ask for; zero for methods without steps.
    """

    trained_ways: int
    trained_shots: int
    trained_steps: int
    max_ways: int
    max_steps: int


@dataclass(frozen=True)
class Metric:
    """A figure measured on unseen classes.

    Attributes:
        name: for example "accuracy".
        value: its mean over episodes.
        confidence_interval: half width of the 95% confidence interval.
        protocol: how it was measured, for example "inductive, 5-way 1-shot, 600 test episodes, omniglot:random".
    """

    name: str
    value: float
    confidence_interval: float
    protocol: str


@dataclass(frozen=True)
class Provenance:
    """Where a bundle comes from.

    Attributes:
        data: description of the data source and its class split.
        seed: of the training run.
        iterations: outer steps taken up to the exported checkpoint.
        created: date and time, ISO 8601.
        versions: of innerloop, torch and Python.
        training: the run's configuration.
    """

    data: str
    seed: int
    iterations: int
    created: str
    versions: Mapping[str, str]
    training: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """Everything a bundle says of itself.

    Attributes:
        name: suggested model name.
        learner: how to build the learner.
        limits: what its tasks may look like.
        provenance: where it comes from.
        metrics: evaluated figures.
        files: SHA-256 of every other file of the bundle, by name.
        digest: SHA-256 of the manifest without this field; identifies the bundle, and is its model version.
    """

    name: str
    learner: LearnerSpec
    limits: TaskLimits
    provenance: Provenance
    metrics: Sequence[Metric] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""

    @property
    def version(self) -> str:
        """Short form of the digest, for people and metric labels."""
        return self.digest[:12]

    def to_json(self) -> dict[str, Any]:
        """Plain data, format and version first."""
        return {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self), "learner": self.learner.to_json()}


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle, ready to adapt."""

    manifest: Manifest
    learner: Learner
    params: Params


def save_bundle(path: Path, manifest: Manifest, params: Params) -> Manifest:
    """Write a bundle, replacing one that is there.

    Whoever loads it meanwhile gets the old one, the new one, or for a moment a BundleError: never half of each, since
    digests tell. What a crash leaves is described at `disk.replace_folder`.

    Args:
        path: folder to write.
        manifest: `files` and `digest` are filled in here.
        params: every parameter of the learner, buffers included; those that only training reads are left out.

    Returns:
        the manifest as written.

    Raises:
        BundleError: `path` exists and is not a bundle.
        OSError: it can't be written; what was there is still there.
    """
    if path.exists() and not (path / MANIFEST).is_file():
        raise BundleError(f"{path} exists and is not a bundle; choose another path or remove it")
    unserved = build_learner(manifest.learner).training_only()
    tensors = {name: value.detach().cpu().contiguous() for name, value in params.items() if name not in unserved}
    parameters = save(tensors)
    manifest = replace(manifest, files={PARAMETERS: hashlib.sha256(parameters).hexdigest()}, digest="")
    manifest = replace(manifest, digest=_digest(manifest.to_json()))
    text = json.dumps(manifest.to_json(), indent=2) + "\n"
    replace_folder(path, {PARAMETERS: parameters, MANIFEST: text.encode()})
    return manifest


def read_manifest(path: Path) -> Manifest:
    """The manifest of the bundle at `path`, its own digest checked, no other file opened.

    Raises:
        BundleError: there is none, it is damaged or altered, or a later Innerloop wrote it.
    """
    file = path / MANIFEST
    try:
        data = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise BundleError(f"{path.name}: no {MANIFEST}, so this is not a bundle") from error
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path.name}: {MANIFEST} can't be read ({type(error).__name__}); export it again") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise BundleError(f"{path.name}: {MANIFEST} does not describe an Innerloop bundle")
    version = data.get("format_version")
    if version not in range(1, FORMAT_VERSION + 1):
        raise BundleError(
            f"{path.name}: written in bundle format {version}, this Innerloop reads up to {FORMAT_VERSION}; upgrade it"
        )
    try:
        manifest = Manifest(
            name=data["name"],
            learner=LearnerSpec.from_json(data["learner"]),
            limits=with_settings("limits", TaskLimits, data["limits"]),
            provenance=with_settings("provenance", Provenance, data["provenance"]),
            metrics=[with_settings("metric", Metric, metric) for metric in data["metrics"]],
            files=dict(data["files"]),
            digest=data["digest"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{path.name}: {MANIFEST} lacks or misstates a field ({error})") from error
    # Of the data as it was read: an Innerloop with more fields than the one that wrote it must find the same digest.
    if _digest(data) != manifest.digest:
        raise BundleError(f"{path.name}: {MANIFEST} was altered after it was written; export it again")
    return manifest


def load_bundle(path: Path, device: torch.device | str = "cpu") -> Bundle:
    """Load a bundle onto `device`, every digest checked.

    Raises:
        BundleError: it is truncated, altered, foreign, from a later format, or needs a method that is not installed.
    """
    manifest = read_manifest(path)
    try:
        learner = build_learner(manifest.learner)
        initial = learner.init(torch.Generator().manual_seed(0))
        expected = {name: value for name, value in initial.items() if name not in learner.training_only()}
    except (ValueError, TypeError, RuntimeError) as error:
        raise BundleError(f"{path.name}: this Innerloop can't build its learner: {error}") from error
    params = _load_parameters(path, manifest)
    misfit = _misfit(params, expected)
    if misfit:
        raise BundleError(f"{path.name}: its parameters do not fit its learner: {misfit}; export it again")
    return Bundle(manifest, learner, {name: tensor.to(device) for name, tensor in params.items()})


def _load_parameters(path: Path, manifest: Manifest) -> Params:
    """The tensors of the bundle's one other file, if it is the one that the manifest speaks of."""
    if set(manifest.files) != {PARAMETERS}:
        raise BundleError(f"{path.name}: lists unexpected files {sorted(manifest.files)}; export it again")
    try:
        parameters = (path / PARAMETERS).read_bytes()
    except OSError as error:
        raise BundleError(f"{path.name}: {PARAMETERS} is missing or unreadable; export it again") from error
    if hashlib.sha256(parameters).hexdigest() != manifest.files[PARAMETERS]:
        raise BundleError(
            f"{path.name}: {PARAMETERS} is truncated or altered (digest differs); copy or export it again"
        )
    try:
        return load(parameters)
    except (SafetensorError, KeyError) as error:
        raise BundleError(f"{path.name}: {PARAMETERS} is not a safetensors file of tensors; export it again") from error


def _misfit(params: Params, expected: Params) -> str | None:
    """What is wrong with parameters that should be like `expected`; None if nothing is."""
    if params.keys() != expected.keys():
        return f"unknown or missing {', '.join(sorted(params.keys() ^ expected.keys()))}"
    for name, right in expected.items():
        found = params[name]
        if (found.shape, found.dtype) != (right.shape, right.dtype):
            return f"{name} is {found.dtype} {list(found.shape)}, not {right.dtype} {list(right.shape)}"
    return None


def _digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest in canonical form, its own digest left out."""
    content = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
