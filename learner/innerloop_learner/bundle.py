"""Bundles: an exported learner on disk, `manifest.json` beside `parameters.safetensors`, and ONNX files if it has any.

A bundle is data only: nothing in it is executed or unpickled. The manifest carries a SHA-256 of every file and one of
itself, so that a truncated or altered bundle is refused with a reason instead of answering wrongly.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from innerloop_learner.acceleration import accelerated
from innerloop_learner.disk import replace_files, write_folder
from innerloop_learner.learner import Learner, build_learner
from innerloop_learner.manifest import (
    MANIFEST,
    PARAMETERS,
    BundleError,
    Manifest,
    digest_of,
    own_files,
    read_files,
    read_manifest,
)
from innerloop_learner.registry import UnknownNameError
from innerloop_learner.settings import SettingsError
from innerloop_learner.signatures import SIGNATURE, SigningKey, TrustedKeys
from innerloop_learner.tasks import Params

HEADER_BYTES, HEADER_BYTES_OF_TENSOR = 2**16, 2**10
"""Room for the header of a file of parameters, in all and for each tensor: its name, shape and place."""


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle, ready to adapt.

    Attributes:
        manifest: the description that is stored with the bundle.
        learner: the learner that the manifest describes.
        params: the learner's meta-learned parameters.
        files: content of the bundle's other files (ONNX graphs, tokenizer), by file name.
    """

    manifest: Manifest
    learner: Learner
    params: Params
    files: Mapping[str, bytes] = field(default_factory=dict)


def save_bundle(
    path: Path,
    manifest: Manifest,
    params: Params,
    files: Mapping[str, bytes] = MappingProxyType({}),
    key: SigningKey | None = None,
) -> Manifest:
    """Write a bundle. It takes the place of one that is already in the folder, and of its signature.

    All other files there stay.

    A process that loads the bundle meanwhile gets the old bundle, the new one, or for a moment a BundleError. It never
    gets half of each, because it compares digests. After a crash the folder holds either the whole old bundle or the
    whole new one (see `disk.replace_files`).

    Args:
        path: folder to write.
        manifest: description of the bundle. This function fills in `files` and `digest`, and `traits` if it is None.
        params: every parameter of the learner, buffers included. Parameters that only training uses are not saved.
        files: content of the files that the manifest's `graphs` and `encoder` need, by file name.
        key: key to sign the bundle with; None to leave it unsigned.

    Returns:
        the manifest as written.

    Raises:
        BundleError: `path` exists and is not a bundle, or it holds a file of another origin that has the name of a
            file of the bundle, or `files` are not those that the manifest needs.
        OSError: the bundle can't be written. What was in the folder is still there.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from innerloop_learner import InputSpec, LearnerSpec
        >>> from innerloop_learner.manifest import Provenance, TaskLimits
        >>> spec = LearnerSpec("protonet", InputSpec((2,)), backbone="mlp", backbone_settings={"widths": [8]})
        >>> params = build_learner(spec).init(torch.Generator().manual_seed(0))
        >>> limits = TaskLimits(trained_ways=5, trained_shots=1, trained_steps=0, max_ways=64, max_steps=0)
        >>> manifest = Manifest("points", spec, limits, Provenance("made by hand", 0, 0, "2026-01-01", {}, {}))
        >>> with TemporaryDirectory() as folder:
        ...     saved = save_bundle(Path(folder) / "points", manifest, params)
        ...     bundle = load_bundle(Path(folder) / "points")
        >>> bundle.manifest.digest == saved.digest, bundle.learner.spec.method
        (True, 'protonet')
    """
    earlier = _replaceable(path)
    if files.keys() | {PARAMETERS} != manifest.file_names:
        raise BundleError(f"this bundle holds {', '.join(sorted(manifest.file_names))}, not {', '.join(sorted(files))}")
    learner = build_learner(manifest.learner)
    served = learner.init(torch.Generator())
    tensors = {name: params[name].detach().cpu().contiguous() for name in served if name in params}
    contents = {PARAMETERS: save(tensors), **files}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    manifest = replace(manifest, traits=manifest.traits or learner.traits, files=digests, digest="")
    manifest = replace(manifest, digest=digest_of(manifest.to_json()))
    text = json.dumps(manifest.to_json(), indent=2) + "\n"
    contents[MANIFEST] = text.encode()
    if key is not None:
        contents[SIGNATURE] = key.sign(contents[MANIFEST])
    if not earlier:
        write_folder(path.resolve(), contents)
        return manifest
    foreign = [name for name in contents if name not in earlier and os.path.lexists(path / name)]
    if foreign:
        raise BundleError(
            f"{path} holds a file {foreign[0]} that is not of the bundle there; move it away or choose another path"
        )
    replace_files(path, contents, leader=MANIFEST)
    for name in earlier - contents.keys():
        (path / name).unlink(missing_ok=True)
    return manifest


def load_bundle(path: Path, device: torch.device | str = "cpu", keys: TrustedKeys | None = None) -> Bundle:
    """Load a bundle onto `device` and check every digest. `save_bundle` has an example.

    The learner is the version of it that computes fastest on the device (see `acceleration.accelerated`).

    Args:
        path: folder of the bundle.
        device: where its parameters go.
        keys: keys of which one must have signed it; None if anybody's bundle will do.

    Raises:
        BundleError: the bundle is truncated, altered, not Innerloop's, of a later format, of a method that is not
            installed, or not signed as it must be.
    """
    manifest = read_manifest(path, keys)
    try:
        learner = accelerated(build_learner(manifest.learner), device)
        expected = _expected(learner)
    except (SettingsError, UnknownNameError) as error:
        raise BundleError(f"{path.name}: this Innerloop can't build its learner: {error}") from error
    except (ValueError, TypeError, ArithmeticError, RuntimeError, MemoryError) as error:
        # What Python or an allocator says means nothing to the reader.
        raise BundleError(f"{path.name}: this Innerloop can't build its learner; export it again") from error
    files = read_files(path, manifest, {PARAMETERS: _most_bytes(expected)})
    params = _load_parameters(path, files.pop(PARAMETERS))
    misfit = _misfit(params, expected)
    if misfit:
        raise BundleError(f"{path.name}: its parameters do not fit its learner: {misfit}; export it again")
    endless = [name for name, tensor in params.items() if not tensor.isfinite().all()]
    if endless:
        raise BundleError(f"{path.name}: its parameters are no finite numbers ({endless[0]}); train it again")
    return Bundle(manifest, learner, {name: tensor.to(device) for name, tensor in params.items()}, files)


def _replaceable(path: Path) -> frozenset[str]:
    """Names of the files of the bundle at `path`, which a new one may replace; none if the folder is empty or missing.

    Raises:
        BundleError: `path` holds something that is not a bundle.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return frozenset()
    files = own_files(path)
    if not files:
        raise BundleError(f"{path} exists and is not a bundle; choose another path or remove it")
    return files


def _expected(learner: Learner) -> Params:
    """Parameters of the shapes and types that a learner has, if it can be without memory for them."""
    try:
        with torch.device("meta"):
            return learner.init(torch.Generator().manual_seed(0))
    except (RuntimeError, NotImplementedError):  # a method of another distribution may need numbers
        return learner.init(torch.Generator().manual_seed(0))


def _most_bytes(params: Params) -> int:
    """Most bytes of a file with parameters of these shapes and types."""
    return HEADER_BYTES + sum(HEADER_BYTES_OF_TENSOR + tensor.numel() * tensor.itemsize for tensor in params.values())


def _load_parameters(path: Path, content: bytes) -> Params:
    try:
        return load(content)
    except (SafetensorError, KeyError) as error:
        raise BundleError(f"{path.name}: {PARAMETERS} is not a safetensors file of tensors; export it again") from error


def _misfit(params: Params, expected: Params) -> str | None:
    """Say how parameters differ from `expected` in names, shapes or types; None if they do not differ."""
    if params.keys() != expected.keys():
        return f"unknown or missing {', '.join(sorted(params.keys() ^ expected.keys()))}"
    for name, right in expected.items():
        found = params[name]
        if (found.shape, found.dtype) != (right.shape, right.dtype):
            return f"{name} is {found.dtype} {list(found.shape)}, not {right.dtype} {list(right.shape)}"
    return None
