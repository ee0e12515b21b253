"""Task states as bytes: another engine, as after a restart, answers with them exactly as before."""

from contextlib import suppress

import numpy as np
import pytest
from bundles import IMAGE, write_models
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_bundles import write_onnx_models

from innerloop_server.domain.tasks import SupportSet
from innerloop_server.engine.interface import StateMismatchError
from innerloop_server.engine.onnx.accelerator import Accelerator
from innerloop_server.engine.onnx.engine import OnnxEngine, OnnxSettings
from innerloop_server.engine.pytorch.engine import TorchEngine, TorchSettings


def torch_engine():
    return TorchEngine(TorchSettings("cpu"))


def onnx_engine():
    return OnnxEngine(OnnxSettings("cpu"))


def onnx_engine_with_a_device():
    return OnnxEngine(OnnxSettings("cpu"), Accelerator("cpu", 0, []))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_models(tmp_path_factory.mktemp("models"))
    write_onnx_models(folder / "graphs")
    return folder


def support_of(name):
    random = np.random.default_rng(0)
    if name == "regression":
        x = random.normal(size=(6, 1)).astype(np.float32)
        return SupportSet(x, np.sin(x), 0)
    return SupportSet(random.integers(0, 256, (6, *IMAGE), dtype=np.uint8), np.tile(np.arange(3), 2), 3)


CASES = [
    ("prototypes", torch_engine),
    ("gradients", torch_engine),
    ("regression", torch_engine),
    ("graphs/classes", onnx_engine),
    ("graphs/classes", onnx_engine_with_a_device),
]


@pytest.mark.parametrize(("name", "engine"), CASES)
def test_a_state_answers_exactly_as_before_in_another_engine(folder, name, engine):
    support = support_of(name)
    first, second = (engine().load(name, folder / name) for _ in range(2))
    steps, width = first.description.traits.default_steps, first.description.head_width(support.ways)
    (adapted,) = first.adapt([support], steps, width)
    content = first.export_state(adapted.state)
    state = second.import_state(content)
    assert second.export_state(state) == content
    before, after = (model.predict([each], [support.x])[0] for model, each in ((first, adapted.state), (second, state)))
    for part in ("logits", "probabilities", "values"):
        np.testing.assert_array_equal(getattr(after, part), getattr(before, part))
    (own,) = second.adapt([support], steps, width)
    assert state.signature == own.state.signature, "it can share a batch with states that were adapted here"


@pytest.fixture(scope="module")
def contents(folder):
    """A model of each backend, and a state of it as bytes."""
    models = {"prototypes": torch_engine(), "graphs/classes": onnx_engine()}
    loaded = [engine.load(name, folder / name) for name, engine in models.items()]
    return [(model, model.export_state(model.adapt([support_of(model.name)], 0, 4)[0].state)) for model in loaded]


def test_a_state_of_the_other_backend_is_refused(contents):
    (by_torch, of_torch), (by_onnx, of_onnx) = contents
    for model, content in ((by_torch, of_onnx), (by_onnx, of_torch)):
        with pytest.raises(StateMismatchError):
            model.import_state(content)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_bytes_come_a_state_is_made_of_them_or_they_are_refused(contents, data):
    model, content = data.draw(st.sampled_from(contents))
    start = data.draw(st.integers(0, min(len(content), 200)))
    altered = content[:start] + data.draw(st.binary(max_size=8)) + content[start + data.draw(st.integers(0, 8)) :]
    with suppress(StateMismatchError):
        model.import_state(altered)
