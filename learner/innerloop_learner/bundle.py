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
from innerloop_learner.tasks import Params


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle, ready to adapt.

    Attributes:
        manifest: what it says of itself.
        learner: built as the manifest says.
        params: its parameters.
        files: content of its other files, by name.
    """

    manifest: Manifest
    learner: Learner
    params: Params
    files: Mapping[str, bytes] = field(default_factory=dict)


def save_bundle(
    path: Path, manifest: Manifest, params: Params, files: Mapping[str, bytes] = MappingProxyType({})
) -> Manifest:
    """Write a bundle, replacing one that is there; files that someone put beside that one stay.

    Whoever loads it meanwhile gets the old one, the new one, or for a moment a BundleError: never half of each, since
    digests tell. After a crash the old one or the new one is there, whole (see `disk.replace_files`).

    Args:
        path: folder to write.
        manifest: `files`, `digest` and, if they are left out, `traits` are filled in here.
        params: every parameter of the learner, buffers included; others, which only training reads, are left out.
        files: what the manifest's `graphs` and `encoder` speak of, by name.

    Returns:
        the manifest as written.

    Raises:
        BundleError: `path` exists and is not a bundle, or a file of another origin has the name of one of the
            bundle's; or the files are not those that the manifest speaks of.
        OSError: it can't be written; what was there is still there.
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


def load_bundle(path: Path, device: torch.device | str = "cpu") -> Bundle:
    """Load a bundle onto `device`, every digest checked, and its learner as the twin that is fastest there.

    Raises:
        BundleError: it is truncated, altered, foreign, from a later format, or needs a method that is not installed.
    """
    manifest = read_manifest(path)
    try:
        learner = accelerated(build_learner(manifest.learner), device)
        expected = learner.init(torch.Generator().manual_seed(0))
    except (ValueError, TypeError, RuntimeError) as error:
        raise BundleError(f"{path.name}: this Innerloop can't build its learner: {error}") from error
    files = read_files(path, manifest)
    params = _load_parameters(path, files.pop(PARAMETERS))
    misfit = _misfit(params, expected)
    if misfit:
        raise BundleError(f"{path.name}: its parameters do not fit its learner: {misfit}; export it again")
    return Bundle(manifest, learner, {name: tensor.to(device) for name, tensor in params.items()}, files)


def _replaceable(path: Path) -> frozenset[str]:
    """Names of the files of the bundle at `path`; none where nothing is."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return frozenset()
    files = own_files(path)
    if not files:
        raise BundleError(f"{path} exists and is not a bundle; choose another path or remove it")
    return files


def _load_parameters(path: Path, content: bytes) -> Params:
    try:
        return load(content)
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
