"""Exported bundles where Innerloop is not: plain ONNX Runtime, as in the docs, and onnxruntime-web under Node."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundles import GRADIENTS, IMAGES, PROTOTYPES, REGRESSION, write_bundle
from cases import CASES, Case
from imports import FOLDERS
from typer.testing import CliRunner

from innerloop_command.app import app
from innerloop_learner.bundle import Bundle, load_bundle, save_bundle
from innerloop_learner.inputs import normalise
from innerloop_learner.tasks import Params, Query, Support
from innerloop_trainer.onnx_export.check import TOLERANCE

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / "docs" / "portable_bundles.md").read_text()
EXAMPLES = ROOT / "clients" / "typescript" / "examples"
WAYS = STEPS = 5
"""Of the script in the docs."""

in_node = pytest.mark.skipif(
    shutil.which("node") is None or not (EXAMPLES / "node_modules" / "onnxruntime-web").is_dir(),
    reason="needs Node.js and what `make test-web` installs",
)

# Steps that change answers enough to tell them from those of no steps, and a head of five ways.
STEPPING = replace(GRADIENTS, settings={"steps": 3, "rate": 0.5})
SINES = replace(REGRESSION, settings={"steps": 3, "rate": 0.1})
IMAGE_CASES = {
    case.spec.method: Case(replace(case.spec, input=replace(IMAGES, shape=case.spec.input.shape)))
    for case in CASES
    if case.spec.task_kind == "classification"
    and case.spec.backbone in ("conv4", "mlp")
    and not case.name.endswith(("-batch", "-group"))
}


@dataclass(frozen=True)
class Task:
    """One task: `support` [S, *input] with `labels` [S] (or [S, D]), and `queries` [Q, *input], all raw."""

    support: np.ndarray
    labels: np.ndarray
    queries: np.ndarray


def images_of(shape: tuple[int, ...], ways: int, shots: int = 1, seed: int = 0) -> Task:
    """A task of distorted noise: a query of each class, and examples class by class."""
    generator = np.random.default_rng(seed)
    centres = generator.integers(0, 256, (ways, *shape))

    def distorted() -> np.ndarray:
        return (0.7 * centres + 0.3 * generator.integers(0, 256, centres.shape)).astype(np.uint8)

    support = np.concatenate([distorted() for _ in range(shots)])
    return Task(support, np.tile(np.arange(ways), shots), distorted()[::-1])


def exported(folder: Path) -> Bundle:
    """The bundle at `folder`, after adding graphs to it."""
    result = CliRunner().invoke(app, ["export", str(folder), "--out", str(folder), "--onnx"])
    assert result.exit_code == 0, result.output
    bundle = load_bundle(folder)
    assert bundle.manifest.graphs is not None
    assert bundle.manifest.graphs.refused == ""
    return bundle


def learners_answers(bundle: Bundle, task: Task, steps: int | None) -> np.ndarray:
    """What the learner itself makes of a task: probabilities [Q, ways], or values [Q, D]."""
    learner, classes = bundle.learner, task.labels.ndim == 1
    ways = int(task.labels.max()) + 1 if classes else 0

    def inputs(x: np.ndarray) -> torch.Tensor:
        return normalise(learner.spec.input, torch.from_numpy(x.copy())[None])

    mask = torch.ones(1, len(task.support), dtype=torch.bool)
    labels = torch.from_numpy(task.labels)[None]
    support = Support(inputs(task.support), labels, mask, torch.tensor([ways]), learner.padded_ways(ways))
    query = Query(inputs(task.queries), torch.ones(1, len(task.queries), dtype=torch.bool))
    with torch.no_grad():
        state = learner.adapt(bundle.params, support, steps).state
        outputs = learner.predict(bundle.params, state, query)[0]
    return (outputs.softmax(-1)[:, :ways] if classes else outputs).numpy()


def told_by_node(folder: Path, task: Task, steps: int | None) -> dict[str, Any]:
    """What the example for Node prints."""
    rows = {name: getattr(task, name).reshape(len(getattr(task, name)), -1).tolist() for name in ("support", "queries")}
    content = {**rows, "labels": task.labels.tolist(), **({} if steps is None else {"steps": steps})}
    file = folder.with_suffix(".task.json")
    file.write_text(json.dumps(content))
    ran = subprocess.run(["node", EXAMPLES / "adapt.js", folder, file], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    told: dict[str, Any] = json.loads(ran.stdout)
    return told


@pytest.fixture(scope="module")
def metric(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that compares."""
    folder = tmp_path_factory.mktemp("models") / "metric"
    write_bundle(folder, PROTOTYPES)
    exported(folder)
    return folder


@pytest.fixture(scope="module")
def stepping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that takes gradient steps, in a Loop."""
    folder = tmp_path_factory.mktemp("models") / "stepping"
    write_bundle(folder, STEPPING)
    exported(folder)
    return folder


@pytest.mark.parametrize("kind", [pytest.param("metric", marks=pytest.mark.slow), "stepping"])
def test_the_script_in_the_docs_adapts_without_pytorch_and_innerloop(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(kind)
    (script,) = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
    absent = ["torch", "safetensors", "onnx", *FOLDERS]
    (tmp_path / "adapt.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({absent}))\n{script}")
    bundle = load_bundle(folder)
    task = images_of(bundle.learner.spec.input.shape, WAYS)
    np.savez(tmp_path / "task.npz", support=task.support, queries=task.queries)
    command = [sys.executable, "-W", "error", tmp_path / "adapt.py", folder, tmp_path / "task.npz"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    expected = learners_answers(bundle, task, STEPS if kind == "stepping" else None)
    labels = json.loads(re.search(r"\[\"bolt\".*?\]", script)[0])
    told = [line.split() for line in ran.stdout.splitlines()]
    assert [label for label, _ in told] == [labels[best] for best in expected.argmax(1)]
    percentages = [float(share.removesuffix("%")) for _, share in told]
    np.testing.assert_allclose(percentages, 100 * expected.max(1), atol=0.1)
    assert min(percentages) > 100 / WAYS + 1


@in_node
@pytest.mark.parametrize("kind", ["metric", "stepping"])
def test_onnxruntime_web_answers_as_the_learner_does(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    bundle = load_bundle(folder)
    task = images_of(bundle.learner.spec.input.shape, ways=4, shots=2)
    for steps in (1, 7) if kind == "stepping" else (None,):
        told = told_by_node(folder, task, steps)
        expected = learners_answers(bundle, task, steps)
        np.testing.assert_allclose(np.array(told["answers"])[:, :4], expected, atol=TOLERANCE)
        assert len(told["losses"]) == (steps or 0)
        assert told["losses"] == sorted(told["losses"], reverse=True)


@in_node
def test_onnxruntime_web_fits_curves_with_the_default_steps(tmp_path: Path) -> None:
    write_bundle(tmp_path / "sines", SINES)
    bundle = exported(tmp_path / "sines")
    x = np.linspace(-1, 1, 6, dtype=np.float32)[:, None]
    task = Task(x, np.sin(x), x[:4] / 2)
    told = told_by_node(tmp_path / "sines", task, None)
    np.testing.assert_allclose(told["answers"], learners_answers(bundle, task, 3), atol=TOLERANCE)
    assert len(told["losses"]) == 3


@in_node
@pytest.mark.slow
@pytest.mark.parametrize("method", IMAGE_CASES)
def test_onnxruntime_web_runs_every_method(method: str, tmp_path: Path) -> None:
    case = IMAGE_CASES[method]
    manifest = write_bundle(tmp_path / "model", case.spec)
    save_bundle(tmp_path / "model", manifest, case.params(torch.float32))
    bundle = exported(tmp_path / "model")
    task = images_of(case.spec.input.shape, ways=3, shots=2)
    steps = 5 if case.learner.max_steps else None
    told = np.array(told_by_node(tmp_path / "model", task, steps)["answers"])[:, :3]
    np.testing.assert_allclose(told, learners_answers(bundle, task, steps), atol=TOLERANCE)
    assert told.std() > TOLERANCE


def test_the_docs_name_the_methods_whose_tasks_run_one_after_the_other() -> None:
    (listed,) = re.findall(r"convolution are fixed: (.*?) on `conv4`", " ".join(DOCS.split()))
    own_convolutions = {
        method for method, case in IMAGE_CASES.items() if any(value.dim() == 5 for value in _state(case).values())
    }
    assert set(re.findall(r"`(.*?)`", listed)) == own_convolutions


def _state(case: Case) -> Params:
    support = case.episodes().support.to(torch.float32)
    with torch.no_grad():
        return case.learner.adapt(case.params(torch.float32), support).state
