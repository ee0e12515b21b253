"""Exports a bundle to another folder, with ONNX graphs if wanted."""

from dataclasses import replace
from pathlib import Path

from innerloop_learner.bundle import Bundle, save_bundle
from innerloop_learner.manifest import ADAPT, PREDICT, Manifest
from innerloop_learner.signatures import SigningKey
from innerloop_trainer.config import ConfigError


def export_bundle(bundle: Bundle, out: Path, *, onnx: bool = False, key: SigningKey | None = None) -> Manifest:
    """Write a bundle under the name of its new folder.

    Args:
        bundle: bundle to write.
        out: folder of the new bundle.
        onnx: whether to add the learner as ONNX graphs; if that can't be done, the manifest says why.
        key: key to sign the new bundle with; None to leave it unsigned.

    Returns:
        the manifest as written.

    Raises:
        ConfigError: ONNX graphs need a package that is not installed.
        BundleError: `out` exists and is not a bundle.
        OSError: the bundle can't be written.
    """
    if onnx:
        bundle = _with_graphs(bundle)
    return save_bundle(out, replace(bundle.manifest, name=out.resolve().name), bundle.params, bundle.files, key)


def _with_graphs(bundle: Bundle) -> Bundle:
    try:
        from innerloop_trainer.onnx_export.graphs import export_graphs
    except ModuleNotFoundError as error:
        raise ConfigError(f'--onnx needs {error.name}: pip install "innerloop[onnx]"') from error
    graphs, files = export_graphs(bundle)
    others = {name: content for name, content in bundle.files.items() if name not in (ADAPT, PREDICT)}
    return replace(bundle, manifest=replace(bundle.manifest, graphs=graphs), files={**others, **files})
