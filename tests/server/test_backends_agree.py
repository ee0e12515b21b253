"""Exported bundles answer by ONNX Runtime as they do by PyTorch."""

from dataclasses import replace

import numpy as np
import pytest
from bundles import GRADIENTS, IMAGE, WEIGHING, write_bundle, write_weighing

from innerloop_learner.bundle import load_bundle, save_bundle
from innerloop_server.domain.tasks import SupportSet
from innerloop_server.engine.onnx.engine import OnnxEngine, OnnxSettings
from innerloop_server.engine.pytorch.engine import TorchEngine, TorchSettings
from innerloop_trainer.onnx_export.graphs import export_graphs

SIZES = [(5, 1), (3, 4), (2, 2)]
"""Ways and shots of tasks."""


@pytest.fixture(
    scope="module", params=[pytest.param(WEIGHING, marks=pytest.mark.slow), GRADIENTS], ids=lambda spec: spec.method
)
def models(request, tmp_path_factory):
    """One exported bundle by both backends."""
    path = tmp_path_factory.mktemp("models") / "model"
    if request.param is WEIGHING:
        write_weighing(path)
    else:
        write_bundle(path, request.param)
    by_torch = TorchEngine(TorchSettings("cpu"))  # first: what it sets must not keep graphs from being exported
    bundle = load_bundle(path)
    graphs, files = export_graphs(bundle)
    save_bundle(path, replace(bundle.manifest, graphs=graphs), bundle.params, files)
    return by_torch.load(path.name, path), OnnxEngine(OnnxSettings("cpu")).load(path.name, path)


def task(seed, ways, shots):
    x = np.random.default_rng(seed).integers(0, 256, (ways * shots, *IMAGE), dtype=np.uint8)
    return SupportSet(x, np.tile(np.arange(ways), shots), ways)


def test_both_say_the_same_of_the_model(models):
    assert models[0].description == models[1].description


@pytest.mark.parametrize("steps", [1, 5])
def test_both_answer_batches_of_unequal_tasks_alike(models, steps):
    tasks = [task(seed, *size) for seed, size in enumerate(SIZES)]
    queries = [each.x[: 2 + index] for index, each in enumerate(tasks)]
    width = models[0].description.head_width(5)
    adapted = [model.adapt(tasks, steps, width) for model in models]
    answers = [
        model.predict([each.state for each in states], queries) for model, states in zip(models, adapted, strict=True)
    ]
    for index in range(len(tasks)):
        one, other = (states[index] for states in adapted)
        assert other.losses == pytest.approx(one.losses, rel=1e-4)
        weighs = models[0].description.method == "protonet"
        assert len(one.weights) == (tasks[index].size if weighs else 0)
        assert other.weights == pytest.approx(one.weights, rel=1e-3, abs=1e-4)
        one, other = (given[index] for given in answers)
        np.testing.assert_allclose(other.logits, one.logits, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(other.probabilities, one.probabilities, atol=1e-5)
