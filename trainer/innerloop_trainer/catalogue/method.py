"""Describes a method for users: its family and paper, the parameters it learns, and its settings."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from innerloop_learner.learner import MethodInfo, build_learner, methods
from innerloop_learner.objectives import objectives
from innerloop_learner.settings import Described, described
from innerloop_learner.spec import InputSpec, LearnerSpec
from innerloop_trainer.catalogue.docstring import read_docstring
from innerloop_trainer.outer_loop import TrainingDefaults, defaults_of, estimators

_EXAMPLE = InputSpec((1, 28, 28))
"""Inputs of Omniglot's size, for which a method is built to list its parameters."""


@dataclass(frozen=True)
class MethodDescription:
    """One method, for people.

    Attributes:
        info: family, paper and properties of the method.
        summary: description in a sentence.
        explanation: paragraphs, and equations, which are indented.
        learns: names of the groups of parameters that training changes.
        settings: settings that `--set NAME=VALUE` takes: those of the method, of its objective and of its estimator.
        training: defaults of its training.
    """

    info: MethodInfo
    summary: str
    explanation: Sequence[str]
    learns: Sequence[str]
    settings: Sequence[Described]
    training: TrainingDefaults

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        described = asdict(self)
        return {"kind": methods.kind, **described.pop("info"), **described}


def describe_method(name: str) -> MethodDescription:
    """Describe the method that is registered under a name.

        >>> maml = describe_method("maml")
        >>> maml.info.family, maml.learns
        ('initialisation', ['backbone', 'head'])
        >>> [setting.name for setting in maml.settings]
        ['steps', 'max_steps', 'update_rule', 'rate', 'in_turn']

    Raises:
        UnknownNameError: no method has this name.
    """
    method, training = methods[name], defaults_of(name)
    kinds = (method, objectives[method.info.objective], estimators[training.estimator])
    text = read_docstring(method)
    return MethodDescription(
        info=method.info,
        summary=text.summary,
        explanation=text.explanation,
        learns=_learned(name),
        settings=[setting for kind in kinds for setting in described(kind.settings_class)],
        training=training,
    )


def usual_parts(method: str) -> Mapping[str, str]:
    """The parts that a method takes unless the user says otherwise: their names by kind."""
    training, kind = defaults_of(method), methods[method]
    usual = {"estimator": training.estimator, "norm": training.norm, "objective": kind.info.objective}
    rule = getattr(kind.settings_class, "update_rule", None)
    return usual if rule is None else {**usual, "update rule": rule}


def _learned(name: str) -> list[str]:
    """Groups of learned parameters, as their names begin."""
    learner = build_learner(LearnerSpec(name, _EXAMPLE, max_ways=5, train_classes=5, backbone="conv4"))
    params, backbone = learner.init(torch.Generator()), learner.backbone.init(torch.Generator())
    learned = [each for each in params if each not in learner.buffers()]
    groups = ("backbone" if each in backbone else each.partition(".")[0] for each in learned)
    return list(dict.fromkeys(groups))
