"""`innerloop methods` lists all that is registered, by what is learned and how."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
from shell import innerloop, mistake, readable

from innerloop_learner.learner import Family, methods
from innerloop_learner.weightings import weightings
from innerloop_learner.weightings.none import NoWeighting
from innerloop_trainer.catalogue import FAMILIES, KINDS, Kind

ROOT = Path(__file__).resolve().parents[2]
LISTED_ELSEWHERE = {"innerloop.sources", "innerloop.encoders", "innerloop.trackers", "innerloop.training_defaults"}
"""Registries whose entries `innerloop sources`, `encoders` and `train --help` list, and one that is a table."""

PARTS = [(kind, name) for kind in KINDS for name in kind.registry]


def test_the_list_names_every_method_and_part_on_a_line_of_its_own() -> None:
    answer = innerloop("methods")
    assert answer.status == 0
    assert readable(answer.output)
    listed = re.findall(r"^  (\S+) ", answer.output, re.MULTILINE)
    assert sorted(name for name in listed if len(name) > 1) == sorted([*methods, *(name for _, name in PARTS)])


def test_the_list_as_json_says_what_a_program_needs_to_choose() -> None:
    listed = json.loads(innerloop("methods", "--json").output)
    assert {(entry["kind"], entry["name"]) for entry in listed} == {
        *(("method", name) for name in methods),
        *((kind.registry.kind, name) for kind, name in PARTS),
    }
    assert all(entry["summary"].endswith(".") and entry["what"] for entry in listed)
    (maml,) = (entry for entry in listed if entry["name"] == "maml")
    assert maml["gradients_at_serving"] is True
    assert maml["ways_can_change"] == "fewer"
    assert maml["tasks"] == ["classification", "regression"]
    assert maml["extends"] is False
    (es,) = (entry for entry in listed if entry["name"] == "es")
    assert es["chosen_by"] == "--estimator es"
    assert "Salimans" in es["paper"]


def test_what_a_thing_is_fits_on_its_line() -> None:
    too_long = [line for line in innerloop("methods").output.splitlines() if line.startswith(" " * 15)]
    assert too_long == [], "the first paragraph of a docstring has at most 55 characters, besides the paper"


def test_every_registry_is_listed_here_or_elsewhere() -> None:
    sources = [file.read_text() for part in ("learner", "trainer", "server") for file in ROOT.glob(f"{part}/**/*.py")]
    made = re.compile(r'^\w.* = Registry\(\s*"[^"]+",\s*"(innerloop\.\w+)"', re.MULTILINE)
    groups = {group for text in sources for group in made.findall(text)}
    assert "innerloop.noises" in groups
    assert groups - LISTED_ELSEWHERE == {methods.group, *(kind.registry.group for kind in KINDS)}


def test_every_family_has_its_words() -> None:
    assert list(FAMILIES) == list(get_args(Family))


@pytest.mark.parametrize("method", list(methods))
def test_a_method_is_shown_with_every_setting_and_its_default(method: str) -> None:
    answer, (described, *_) = innerloop("methods", method), json.loads(innerloop("methods", method, "--json").output)
    assert readable(answer.output)
    assert described["learns"][0] == "backbone"
    assert described["summary"].endswith(".")
    names = [setting["name"] for setting in described["settings"]]
    assert set(names) >= {each.name for each in fields(methods[method].settings_class)}
    assert all(name in answer.output for name in names)
    assert all(setting["doc"] for setting in described["settings"])


@pytest.mark.parametrize(("kind", "name"), PARTS, ids=[f"{kind.registry.kind} {name}" for kind, name in PARTS])
def test_a_part_is_shown_with_how_to_choose_it_and_its_settings(kind: Kind, name: str) -> None:
    answer, found = innerloop("methods", name), json.loads(innerloop("methods", name, "--json").output)
    assert readable(answer.output)
    (described,) = (each for each in found if each["kind"] == kind.registry.kind)
    assert described["chosen_by"] in answer.output
    assert "NAME" not in described["chosen_by"] + described["set_by"]
    if kind.settings:
        declared = [each.name for each in fields(getattr(kind.registry[name], kind.settings))]
        assert [setting["name"] for setting in described["settings"]] == declared


def test_equations_and_papers_come_from_docstrings() -> None:
    shown = innerloop("methods", "meta_dropout").output
    assert "Lee, Nam, Yang and Hwang 2020" in shown
    assert "\n    y_l = (W_l h + b_l) * Softplus(m_l(h; p))  " in shown


def test_a_part_names_the_methods_that_take_it() -> None:
    (weighting,) = json.loads(innerloop("methods", "leave_one_out", "--json").output)
    assert weighting["taken_by"] == [name for name in methods if methods[name].weighs_examples]


def test_one_name_may_stand_for_two_things() -> None:
    kinds = [each["kind"] for each in json.loads(innerloop("methods", "reptile", "--json").output)]
    assert kinds == ["method", "estimator"]


def test_what_others_register_is_listed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(NoWeighting):
        """Counts what I say (Someone 2031)."""

    monkeypatch.setitem(weightings._entries, "mine", Mine)
    assert re.search(r"--weighting NAME\n(  .*\n)*  mine +Counts what I say +\n", innerloop("methods").output)
    assert "Someone 2031" in innerloop("methods", "mine").output


def test_a_name_that_there_is_not_can_not_be_shown() -> None:
    message = mistake("methods", "mamml")
    assert "unknown method 'mamml'; there are: anil, " in message
    assert "Nor is it the name of an estimator, update rule, weighting, " in message
