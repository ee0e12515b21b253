"""Manifests, the descriptions stored with bundles. They and the bundle's other files can be read without PyTorch."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from innerloop_learner.calibration.record import Calibration
from innerloop_learner.disk import INCOMING, replace_file
from innerloop_learner.encoders.spec import ENCODER, TOKENIZER, EncoderSpec
from innerloop_learner.regular_file import UnusableFileError, read_regular_file
from innerloop_learner.settings import SettingsError, with_settings
from innerloop_learner.signatures import SIGNATURE, SignatureError, SigningKey, TrustedKeys, read_signature
from innerloop_learner.spec import LearnerSpec
from innerloop_learner.traits import MOST_STEPS, MOST_WAYS, Traits

FORMAT = "innerloop-bundle"
FORMAT_VERSION = 4
"""Version of the bundle format.

Version 2 added ONNX files, version 3 the model's traits, and version 4 encoders of audio, features that are maps, and
the origin of encoders.
"""

_TRAITS_SINCE = 3
"""First version of the format in which the traits are a section of their own."""

MANIFEST = "manifest.json"
PARAMETERS = "parameters.safetensors"
ADAPT, PREDICT = "adapt.onnx", "predict.onnx"
FILES = frozenset({PARAMETERS, ADAPT, PREDICT, ENCODER, TOKENIZER})
"""All names that files of a bundle may have, besides the manifest and its signature."""

MOST_MANIFEST_BYTES = 4 * 2**20
"""Most bytes of a manifest; those of bundles with long provenance have some ten thousand."""

MOST_FILE_BYTES = 2 * 2**30
"""Most bytes of each other file: what the format of ONNX graphs can hold."""


class BundleError(ValueError):
    """A bundle can't be used; the message says why and what to do."""


@dataclass(frozen=True)
class TaskLimits:
    """Limits of the tasks that a bundle serves, and the tasks it was trained for.

    Attributes:
        trained_ways: number of classes per task in training; zero for regression, or if nothing was meta-trained.
        trained_shots: number of support examples per class in training, or per task for regression; zero if nothing
            was meta-trained.
        trained_steps: number of inner steps in training; zero for methods without steps.
        max_ways: most classes that a request may have; zero for regression.
        max_steps: most inner steps that a request may ask for; zero for methods without steps.

    Raises:
        ValueError: a number is negative or absurdly large.
    """

    trained_ways: int
    trained_shots: int
    trained_steps: int
    max_ways: int
    max_steps: int

    def __post_init__(self) -> None:
        for name in ("trained_ways", "trained_shots", "trained_steps", "max_ways", "max_steps"):
            value, most = getattr(self, name), MOST_STEPS if name.endswith("steps") else MOST_WAYS
            if not 0 <= value <= most:
                raise ValueError(f"{name} lies between 0 and {most:,}, not at {value}")


@dataclass(frozen=True)
class Metric:
    """A figure measured on unseen classes.

    Attributes:
        name: for example "accuracy".
        value: its mean over episodes.
        confidence_interval: half width of the 95% confidence interval.
        protocol: how it was measured, for example "inductive, 5-way 1-shot, 600 test episodes, omniglot:random".
        classes: how many classes it was measured on, and a digest of which, for example "20 classes, 3f9a1c22b0d4";
            empty where there are no classes, or in bundles of before this was recorded.
    """

    name: str
    value: float
    confidence_interval: float
    protocol: str
    classes: str = ""


@dataclass(frozen=True)
class Provenance:
    """The training run that a bundle comes from.

    Attributes:
        data: description of the data source and its class split; empty if nothing was meta-trained.
        seed: seed of the training run.
        iterations: number of outer steps taken up to the exported checkpoint; zero if nothing was meta-trained.
        created: date and time, ISO 8601.
        versions: versions of innerloop, torch and Python.
        training: the run's configuration.
        options: options of the data source, defaults included.
        classes: digests of the classes of the splits "train" and "validation", separated by blanks. `evaluate` leaves
            these classes out. Empty for regression, and in older bundles, which did not record them.
    """

    data: str
    seed: int
    iterations: int
    created: str
    versions: Mapping[str, str]
    training: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    classes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def meta_trained(self) -> bool:
        """Whether anything was meta-trained: bundles of an encoder and a head can do without."""
        return self.iterations > 0


@dataclass(frozen=True)
class Graphs:
    """The learner as ONNX graphs, `adapt.onnx` and `predict.onnx`.

    Attributes:
        opset: version of ONNX's standard operators; the graphs use no others.
        refused: reason why there are no graphs; empty if there are.
    """

    opset: int
    refused: str = ""


@dataclass(frozen=True)
class Manifest:
    """The description that is stored with a bundle.

    Attributes:
        name: suggested model name.
        learner: description from which the learner is built.
        limits: limits of its tasks.
        provenance: the training run that it comes from.
        metrics: figures measured on unseen classes.
        traits: properties of the learner that matter to callers; None before the bundle is saved, and in older bundles.
        graphs: the learner as ONNX graphs; None if it was never exported as such.
        encoder: the frozen feature extractor in front of the learner; None if there is none.
        calibration: how sure its answers are; None if it was never calibrated, as older bundles.
        files: SHA-256 of every other file of the bundle, by name.
        digest: SHA-256 of the manifest without this field; identifies the bundle, and is its model version.
    """

    name: str
    learner: LearnerSpec
    limits: TaskLimits
    provenance: Provenance
    metrics: Sequence[Metric] = ()
    traits: Traits | None = None
    graphs: Graphs | None = None
    encoder: EncoderSpec | None = None
    calibration: Calibration | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""

    @property
    def version(self) -> str:
        """Short form of the digest, for people and metric labels."""
        return self.digest[:12]

    @property
    def file_names(self) -> frozenset[str]:
        """Names of the files of the bundle that this manifest describes, the manifest itself left out."""
        names = {PARAMETERS}
        if self.graphs is not None and not self.graphs.refused:
            names |= {ADAPT, PREDICT}
        if self.encoder is not None:
            names |= {ENCODER, TOKENIZER} if self.encoder.input == "texts" else {ENCODER}
        return frozenset(names)

    def to_json(self) -> dict[str, Any]:
        """Plain data, format and version first; sections that a bundle lacks are left out."""
        fields = {**asdict(self), "learner": self.learner.to_json()}
        if self.traits is not None and not self.traits.extends:  # so that an Innerloop that knows of none reads it too
            del fields["traits"]["extends"]
        if self.calibration is not None:
            fields["calibration"] = self.calibration.to_json()
        absent = {name for name in ("traits", "graphs", "encoder", "calibration") if getattr(self, name) is None}
        content = {name: value for name, value in fields.items() if name not in absent}
        return {"format": FORMAT, "format_version": FORMAT_VERSION, **content}


def own_files(path: Path) -> frozenset[str]:
    """Names of the files of the bundle at `path`, the manifest and its signature included, even if it is damaged.

    All other files in the folder are the user's. If the folder's manifest is not a bundle's, there are no names.
    """
    try:
        data = json.loads(read_regular_file(path / MANIFEST, MOST_MANIFEST_BYTES))
        listed = set(data["files"]) if data["format"] == FORMAT else None
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return frozenset()
    # A manifest may list any names, but a bundle never has files of other names than these.
    return frozenset() if listed is None else frozenset({MANIFEST} | (listed & FILES) | _own_signature(path))


def read_manifest(path: Path, keys: TrustedKeys | None = None) -> Manifest:
    """Read the manifest of the bundle at `path`, and check its digest. No other file is opened but its signature.

    Args:
        path: folder of the bundle.
        keys: keys of which one must have signed the manifest; None if anybody's bundle will do.

    Raises:
        BundleError: there is no manifest, it is damaged, altered or not signed as it must be, or a later Innerloop
            wrote it.
    """
    content = _read_manifest_file(path)
    if keys is not None:
        try:
            keys.check(path, content)
        except SignatureError as error:
            raise BundleError(f"{path.name}: {error}") from error
    return _parse(path, content)


def sign_bundle(path: Path, key: SigningKey) -> Manifest:
    """Sign the bundle at `path`, after checking that it is complete. A signature that is there is replaced.

    Returns:
        the manifest that was signed.

    Raises:
        BundleError: the bundle is damaged or altered, or a file of another origin has the name of the signature.
        OSError: the signature can't be written.
    """
    content = _read_manifest_file(path)
    manifest = _parse(path, content)
    read_files(path, manifest)
    try:
        read_signature(path)
    except SignatureError as error:
        raise BundleError(f"{path.name}: {error}") from error
    replace_file(path / SIGNATURE, key.sign(content))
    return manifest


def _read_manifest_file(path: Path) -> bytes:
    try:
        return read_regular_file(path / MANIFEST, MOST_MANIFEST_BYTES)
    except FileNotFoundError as error:
        raise BundleError(f"{path.name}: no {MANIFEST}, so this is not a bundle") from error
    except UnusableFileError as error:
        raise BundleError(f"{path.name}: {MANIFEST} {error}") from error
    except OSError as error:
        raise BundleError(f"{path.name}: {MANIFEST} can't be read ({error.strerror})") from error


def _own_signature(path: Path) -> frozenset[str]:
    try:
        return frozenset() if read_signature(path) is None else frozenset({SIGNATURE})
    except SignatureError:
        return frozenset()


def _parse(path: Path, content: bytes) -> Manifest:
    """The manifest of the bundle at `path`, given its bytes."""
    try:
        data = json.loads(content)
        # Half a character can be written in JSON, but in no answer of a server.
        json.dumps(data, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path.name}: {MANIFEST} is not JSON; export it again") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise BundleError(f"{path.name}: {MANIFEST} does not describe an Innerloop bundle")
    version = data.get("format_version")
    if version not in range(1, FORMAT_VERSION + 1):
        raise BundleError(
            f"{path.name}: written in bundle format {version}, this Innerloop reads up to {FORMAT_VERSION}; upgrade it"
        )
    try:
        manifest = _from_json(data)
    except SettingsError as error:
        raise BundleError(f"{path.name}: {MANIFEST} misstates a field ({error})") from error
    except KeyError as error:
        raise BundleError(f"{path.name}: {MANIFEST} lacks a field ({error})") from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BundleError(f"{path.name}: {MANIFEST} misstates a field; export it again") from error
    # The digest is of the data as read, since this Innerloop may have more fields than the one that wrote the manifest.
    if digest_of(data) != manifest.digest:
        raise BundleError(f"{path.name}: {MANIFEST} was altered after it was written; export it again")
    return manifest


def read_files(path: Path, manifest: Manifest, most: Mapping[str, int] = MappingProxyType({})) -> dict[str, bytes]:
    """Read the bundle's other files, and check that they are those that the manifest lists.

    Args:
        path: folder of the bundle.
        manifest: manifest of the bundle.
        most: most bytes of files whose sizes are known, by name.

    Raises:
        BundleError: a file is missing, unexpected, truncated, altered or too large, or no regular file.
    """
    if manifest.files.keys() != manifest.file_names:
        raise BundleError(
            f"{path.name}: lists unexpected files {sorted(manifest.files)}, not {sorted(manifest.file_names)}; "
            "export it again"
        )
    return {
        name: _read_file(path, name, digest, most.get(name, MOST_FILE_BYTES)) for name, digest in manifest.files.items()
    }


def digest_of(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest, as plain data, in canonical form, its own digest left out."""
    content = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _from_json(data: Mapping[str, Any]) -> Manifest:
    graphs, encoder, calibration, learner = *map(data.get, ("graphs", "encoder", "calibration")), _learner(data)
    traits = _traits(data, learner)
    if traits is not None and (traits.task_kind, traits.target_size) != (learner.task_kind, learner.target_size):
        raise SettingsError("traits: task_kind and target_size are not those of the learner")
    if not all(isinstance(each, str) for each in (data["name"], data["digest"])):
        raise SettingsError("name and digest are texts")
    return Manifest(
        name=data["name"],
        learner=learner,
        limits=with_settings("limits", TaskLimits, data["limits"]),
        provenance=with_settings("provenance", Provenance, data["provenance"]),
        metrics=[with_settings("metric", Metric, metric) for metric in data["metrics"]],
        traits=traits,
        graphs=None if graphs is None else with_settings("graphs", Graphs, _without(graphs, _TRAITS_OF_GRAPHS)),
        encoder=None if encoder is None else EncoderSpec.from_json(encoder),
        calibration=None if calibration is None else Calibration.from_json(calibration),
        files=dict(data["files"]),
        digest=data["digest"],
    )


_TRAITS_OF_GRAPHS = ("ways_can_change", "order_matters", "gradients_at_serving", "default_steps", "max_steps")
"""Traits that version 2 of the format kept in the section about graphs."""


def _learner(data: Mapping[str, Any]) -> LearnerSpec:
    written, graphs = data["learner"], data.get("graphs")
    if "class_balance" not in written and graphs is not None and not graphs["refused"]:
        # Graphs of before this was recorded count every example once, and their learner must answer as they do.
        written = {**written, "class_balance": "proportional"}
    return LearnerSpec.from_json(written)


def _traits(data: Mapping[str, Any], learner: LearnerSpec) -> Traits | None:
    if "traits" in data:
        return with_settings("traits", Traits, data["traits"])
    if data["format_version"] >= _TRAITS_SINCE or data.get("graphs") is None:
        return None
    sizes = {"head_ways": learner.max_ways, "max_ways": learner.max_ways, "target_size": learner.target_size}
    of_graphs = {name: data["graphs"][name] for name in _TRAITS_OF_GRAPHS}
    return with_settings("traits", Traits, {"task_kind": learner.task_kind, **sizes, **of_graphs})


def _without(data: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name not in names}


def _read_file(path: Path, name: str, digest: str, most: int) -> bytes:
    found, reason = False, "is missing or unreadable"
    # A crash in the middle of replacing a bundle leaves files of the new one in a folder of their own.
    for place in (path, path / INCOMING):
        try:
            content = read_regular_file(place / name, most)
        except UnusableFileError as error:
            reason = str(error)
        except OSError:
            continue
        else:
            if hashlib.sha256(content).hexdigest() == digest:
                return content
            found = True
    if found:
        raise BundleError(f"{path.name}: {name} is truncated or altered (digest differs); copy or export it again")
    raise BundleError(f"{path.name}: {name} {reason}; export it again")
