"""Registries: names, and what other distributions enter."""

import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from innerloop_learner import InputSpec, LearnerSpec, build_learner
from innerloop_learner.augmentations import augmentations
from innerloop_learner.backbones import backbones
from innerloop_learner.learner import methods
from innerloop_learner.norms import norms
from innerloop_learner.objectives import objectives
from innerloop_learner.registry import Registry, UnknownNameError
from innerloop_learner.update_rules import update_rules

GROUP = "innerloop.test_shapes"

MODULE = """
class Circle: ...
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another distribution, as an installer leaves it: a module and its metadata."""
    (tmp_path / "shapes_of_others.py").write_text(MODULE)
    info = tmp_path / "shapes_of_others-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shapes-of-others\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[{GROUP}]\ncircle = shapes_of_others:Circle\nsquare = no_such_module:Square\n"
        "[innerloop.methods]\nguess = methods_of_others:Guess\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("registry", [methods, backbones, update_rules, norms, objectives, augmentations])
def test_an_unknown_name_lists_the_known_ones(registry: Registry[object]) -> None:
    with pytest.raises(UnknownNameError) as caught:
        registry["telepathy"]
    assert str(caught.value).endswith(f" 'telepathy'; there are: {', '.join(registry)}")
    assert list(registry) == sorted(registry)


def test_a_name_is_given_once() -> None:
    registry: Registry[object] = Registry("shape", GROUP)
    registry.register("dot")(object())
    with pytest.raises(ValueError, match="shape 'dot' is registered already"):
        registry.register("dot")(object())


def test_what_is_registered_is_returned_as_it_was() -> None:
    registry: Registry[object] = Registry("shape", GROUP)
    dot = object()
    assert registry.register("dot")(dot) is dot
    assert registry["dot"] is dot


@pytest.mark.usefixtures("installed")
def test_another_distribution_registers_by_an_entry_point() -> None:
    registry: Registry[type] = Registry("shape", GROUP)
    assert list(registry) == ["circle", "square"]
    assert registry["circle"].__name__ == "Circle"
    assert registry["circle"] is registry["circle"]


@pytest.mark.usefixtures("installed")
def test_a_broken_distribution_harms_no_other() -> None:
    registry: Registry[type] = Registry("shape", GROUP)
    registry.register("dot")(object)
    assert registry["dot"] is object
    assert registry["circle"].__name__ == "Circle"
    with pytest.raises(ModuleNotFoundError):
        registry["square"]


@pytest.mark.usefixtures("installed")
def test_nothing_is_imported_before_it_is_asked_for() -> None:
    sys.modules.pop("shapes_of_others", None)
    registry: Registry[type] = Registry("shape", GROUP)
    list(registry)
    assert "shapes_of_others" not in sys.modules
    registry["circle"]
    assert "shapes_of_others" in sys.modules


METHOD = """
from innerloop_learner.learner import MethodInfo, methods
from innerloop_learner.methods.protonet import ProtoNet

@methods.register("guess")
class Guess(ProtoNet):
    info = MethodInfo("guess", "baseline", "none", False, False, "any", ("classification",))
"""


def test_a_third_partys_method_is_built_like_any_other(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # It may enter itself by the decorator too.
    (installed / "methods_of_others.py").write_text(METHOD)
    monkeypatch.setattr(methods, "_points", None)
    monkeypatch.setattr(methods, "_entries", dict(methods._entries))
    assert [point.name for point in entry_points(group="innerloop.methods")] == ["guess"]
    assert "guess" in list(methods)
    assert build_learner(LearnerSpec("guess", InputSpec((1, 16, 16)))).info.name == "guess"
