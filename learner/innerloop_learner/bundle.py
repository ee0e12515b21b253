"""Bundles: an exported learner on disk, `manifest.json` beside `parameters.safetensors`.

A bundle is data only: nothing in it is executed or unpickled. The manifest carries a SHA-256 of every file and one of
itself, so that a truncated or altered bundle is refused with a reason instead of answering wrongly.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from innerloop_learner.learner import Learner, build_learner
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
    """Write a bundle, replacing one that is there; readers see the old one or the new one, never half of it.

    Args:
        path: folder to write.
        manifest: `files` and `digest` are filled in here.
        params: every parameter of the learner, buffers included.

    Returns:
        the manifest as written.

    Raises:
        BundleError: `path` exists and is not a bundle.
    """
    if path.exists() and not (path / MANIFEST).is_file():
        raise BundleError(f"{path} exists and is not a bundle; choose another path or remove it")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in params.items()}
    parameters = save(tensors)
    manifest = replace(manifest, files={PARAMETERS: hashlib.sha256(parameters).hexdigest()}, digest="")
    manifest = replace(manifest, digest=_digest(manifest.to_json()))
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        scratch.chmod(0o755)
        (scratch / PARAMETERS).write_bytes(parameters)
        (scratch / MANIFEST).write_text(json.dumps(manifest.to_json(), indent=2) + "\n")
        if path.exists():
            shutil.rmtree(path)
        os.replace(scratch, path)  # noqa: PTH105 - Path.replace says the same, os.replace says atomic
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
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
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BundleError(f"{path.name}: {MANIFEST} can't be read ({type(error).__name__}); export it again") from error
    if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
        raise BundleError(f"{path.name}: {MANIFEST} does not describe an Innerloop bundle")
    version = data.pop("format_version", None)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise BundleError(
            f"{path.name}: written in bundle format {version}, this Innerloop reads up to {FORMAT_VERSION}; upgrade it"
        )
    try:
        manifest = Manifest(
            name=data["name"],
            learner=LearnerSpec.from_json(data["learner"]),
            limits=TaskLimits(**data["limits"]),
            provenance=Provenance(**data["provenance"]),
            metrics=[Metric(**metric) for metric in data["metrics"]],
            files=data["files"],
            digest=data["digest"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{path.name}: {MANIFEST} lacks or misstates a field ({error})") from error
    if _digest(manifest.to_json()) != manifest.digest:
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
    except (ValueError, TypeError) as error:
        raise BundleError(f"{path.name}: this Innerloop can't build its learner: {error}") from error
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
        params = load(parameters)
    except SafetensorError as error:
        raise BundleError(f"{path.name}: {PARAMETERS} is not a safetensors file; export it again") from error
    expected = learner.init(torch.Generator().manual_seed(0))
    shapes = {name: tuple(tensor.shape) for name, tensor in params.items()}
    if shapes != {name: tuple(tensor.shape) for name, tensor in expected.items()}:
        raise BundleError(f"{path.name}: its parameters do not fit its learner; export it again")
    return Bundle(manifest, learner, {name: tensor.to(device) for name, tensor in params.items()})


def _digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest in canonical form, its own digest left out."""
    content = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
