"""Settings of methods and backbones, checked by name, type and range."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from innerloop_learner import InputSpec, LearnerSpec, build_learner
from innerloop_learner.backbones import backbones
from innerloop_learner.learner import methods
from innerloop_learner.objectives import objectives
from innerloop_learner.settings import Described, SettingsError, described, setting, with_settings


def oven(
    size: int,
    heat: float = 180.0,
    mode: Literal["fan", "grill"] = "fan",
    light: bool = True,
    trays: Sequence[int] = (1,),
) -> tuple[Any, ...]:
    if heat > 300:
        raise ValueError("too hot")
    return size, heat, mode, light, trays


def test_settings_that_fit_arrive() -> None:
    assert with_settings("oven", oven, {"heat": 200, "mode": "grill", "light": False, "trays": [2, 3]}, 60) == (
        *(60, 200, "grill", False, [2, 3]),
    )
    assert with_settings("oven", oven, {}, 60) == (60, 180.0, "fan", True, (1,))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"colour": "red"}, "oven has no setting 'colour'; it has: heat, mode, light, trays"),
        ({"size": 3}, "oven has no setting 'size'; it has: heat, mode, light, trays"),
        ({"heat": "hot"}, "oven: heat must be a number, not 'hot'"),
        ({"heat": True}, "oven: heat must be a number, not True"),
        ({"heat": 400}, "oven: too hot"),
        ({"mode": "steam"}, "oven: mode must be fan or grill, not 'steam'"),
        ({"light": "on"}, "oven: light must be true or false, not 'on'"),
        ({"trays": 2}, "oven: trays must be a list, each a whole number, not 2"),
        ({"trays": [2.5]}, "oven: trays must be a list, each a whole number, not [2.5]"),
    ],
)
def test_settings_that_do_not_fit_are_named_with_what_is_allowed(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        with_settings("oven", oven, settings, 60)
    assert str(caught.value) == message


@dataclass(frozen=True)
class Kiln:
    heat: int = setting(900, "degrees", least=100, most=1300)
    share: float = setting(0.5, "how full it is", least=0)


@dataclass(frozen=True)
class SmallKiln(Kiln):
    heat: int = 700


@pytest.mark.parametrize("kind", [Kiln, SmallKiln])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heat": 99}, "kiln: heat must be at least 100, not 99"),
        ({"heat": 1301}, "kiln: heat must be at most 1300, not 1301"),
        ({"share": float("nan")}, "kiln: share must be at least 0, not nan"),
    ],
)
def test_numbers_outside_their_range_are_refused(kind: type[Kiln], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        with_settings("kiln", kind, settings)
    assert str(caught.value) == message


def test_another_default_keeps_what_a_setting_means() -> None:
    assert described(SmallKiln)[0] == Described("heat", "a whole number", 700, "degrees")


OWNERS = [
    *(methods[name] for name in methods),
    *(backbones[name] for name in backbones),
    *(objectives[name] for name in objectives),
]


@pytest.mark.parametrize("owner", OWNERS, ids=lambda owner: owner.__name__)
def test_every_setting_is_documented_and_fixed(owner: Any) -> None:
    kind = owner.settings_class
    assert kind.__dataclass_params__.frozen
    assert all(each.doc and each.kind for each in described(kind))
    assert with_settings("default", kind, vars(kind())) == kind()


@pytest.mark.parametrize("name", list(methods))
def test_no_setting_of_a_method_is_called_as_one_of_its_objective(name: str) -> None:
    own, of_objective = (
        {each.name for each in described(owner.settings_class)}
        for owner in (methods[name], objectives[methods[name].info.objective])
    )
    assert own.isdisjoint(of_objective)


def test_a_missing_argument_is_told() -> None:
    with pytest.raises(SettingsError, match="oven lacks size"):
        with_settings("oven", oven, {})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"method": "protonet", "settings": {"steps": 1}}, "protonet has no setting 'steps'; it has none"),
        ({"settings": {"rate": float("nan")}}, "maml: the inner rate must be positive, not nan"),
        ({"settings": {"steps": 0}}, "maml: steps must lie between 1 and max_steps (20), not 0"),
        ({"backbone_settings": {"width": 0}}, "backbone conv4: width must be at least 1, not 0"),
        (
            {"backbone_settings": {"width": 28, "norm": "group"}},
            "conv4: group norm needs a multiple of 8 channels, not 28",
        ),
        ({"input": InputSpec((1, 8, 8))}, "conv4: images of 8x8 are too small to halve four times"),
        ({"input": InputSpec((8,))}, "conv4 takes images (channels, height, width), not inputs of shape (8,)"),
    ],
)
def test_learners_that_can_not_be_built_say_why(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        build_learner(LearnerSpec(**{"method": "maml", "input": InputSpec((1, 28, 28)), **spec}))
    assert message in str(caught.value)
