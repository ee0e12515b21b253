"""Timed models: a Conv4-64 of every method, untrained, exported with its graphs."""

import hashlib
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import GraphProto

import innerloop_learner
import innerloop_trainer.onnx_export
from innerloop_learner import build_learner
from innerloop_learner.manifest import ADAPT, PARAMETERS, PREDICT, Graphs, read_manifest
from innerloop_learner.spec import LearnerSpec
from innerloop_learner.traits import Traits

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from training import run_innerloop
from untrained import IMAGES, WAYS, initial_params, write_bundle

CACHE = Path(__file__).resolve().parent.parent.parent / "runs" / "onnx-models"
EXPORTING = (innerloop_learner, innerloop_trainer.onnx_export)
"""Packages whose code decides what graphs look like."""

TRAIN_CLASSES = 64
STEPS = 5
HEAD_ONLY = ("lstm-optimizer", "meta-lstm")
"""Learned optimizers adapt the head alone: they cost thousands of operations per weight and step."""


@dataclass(frozen=True)
class Portable:
    """A bundle with graphs.

    Attributes:
        path: of the bundle.
        graphs: what its manifest says of them.
        traits: of its learner.
    """

    path: Path
    graphs: Graphs
    traits: Traits

    def files(self) -> dict[str, int]:
        """Sizes in bytes of the graphs, which hold the parameters, and of the parameters alone."""
        return {name: (self.path / name).stat().st_size for name in (ADAPT, PREDICT, PARAMETERS)}

    def nodes(self) -> dict[str, int]:
        """Operators of each graph, those in bodies of loops included."""
        return {name: _nodes(onnx.load(self.path / name).graph) for name in (ADAPT, PREDICT)}


def exported(method: str) -> Portable:
    """The bundle of a method, exported in a process of its own unless that was done before."""
    spec = _spec(method)
    with tempfile.TemporaryDirectory(prefix="onnx-") as folder:
        plain = Path(folder) / method
        write_bundle(plain, spec, initial_params(spec))
        path = CACHE / _digest(read_manifest(plain).digest) / method
        if not path.is_dir():
            run_innerloop("export", str(plain), "--out", str(path), "--onnx")
    manifest = read_manifest(path)
    if manifest.graphs is None or manifest.traits is None:
        raise RuntimeError(f"{path} was exported without a word on graphs")
    return Portable(path, manifest.graphs, manifest.traits)


def _spec(method: str) -> LearnerSpec:
    """Default settings but for the number of steps."""
    spec = LearnerSpec(method, IMAGES, max_ways=WAYS, train_classes=TRAIN_CLASSES)
    settings: dict[str, Any] = {"steps": STEPS} if build_learner(spec).max_steps else {}
    return replace(spec, settings=settings | ({"adapts": "head"} if method in HEAD_ONLY else {}))


def _digest(bundle: str) -> str:
    """A short digest of a bundle and of the packages that its graphs are made by."""
    digest = hashlib.sha256(f"{bundle} {onnx.__version__} {torch.__version__}".encode())
    for package in EXPORTING:
        for file in sorted(Path(package.__path__[0]).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _nodes(graph: GraphProto) -> int:
    inner = (attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g"))
    return len(graph.node) + sum(_nodes(body) for body in inner)
