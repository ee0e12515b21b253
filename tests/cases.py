"""One small learner per registered method and kind of task, and episodes for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import torch
from bundles import small_settings
from torch import Tensor

from innerloop_learner import InputSpec, Learner, LearnerSpec, Params, Query, Support, build_learner
from innerloop_learner.gradient_learner import GradientLearner, recomputing
from innerloop_learner.learner import methods
from innerloop_learner.norms import norms
from innerloop_learner.objectives import Objective, build_objective
from innerloop_learner.tasks import Episodes

IMAGE = (1, 16, 16)

NORMS = ("batch", "group")
"""Every method is tried with these norms, besides "task", the usual one; with groups by `make test-slow` only."""

TRIED_WITH_EVERY_NORM = ("maml", "protonet")
"""A method that adapts the norms' parameters, and one that does not."""

RATES = {"maml++": 0.2}
"""Of methods that learn too little with the rate of the others."""

TINY: Mapping[str, Mapping[str, Any]] = {
    "resnet12": {"widths": [4, 4, 8, 8], "drop_size": 2},
    "resnet18": {"widths": [4, 4, 8, 8], "stem": "small"},
    "vit": {"patch": 8, "width": 8, "depth": 2, "heads": 2, "expansion": 2, "pooling": "token"},
}
"""Settings of small networks of the other backbones of images, by name."""

SELDOM = ("maml-classification-task-resnet18", "maml-classification-task-vit")
"""Names of cases that take seconds, and hardly differ from that of resnet12: `make test-slow` runs them."""

OTHER_NETWORKS = ("cell", *TINY)
"""Backbones that names of cases name."""


@dataclass(frozen=True)
class Case:
    """A learner under test.

    Attributes:
        spec: of a small learner.
        training: settings of the objective that trains it.
    """

    spec: LearnerSpec
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seldom(self) -> bool:
        """Whether only `make test-slow` runs it: it takes long, or two methods with every norm stand for it."""
        of_groups = self.spec.backbone_settings.get("norm") == "group" and self.spec.method not in TRIED_WITH_EVERY_NORM
        return of_groups or self.name in SELDOM

    @property
    def name(self) -> str:
        norm = self.spec.backbone_settings.get("norm", "none")
        noise = self.spec.backbone_settings.get("noise", "none")
        network = self.spec.backbone if self.spec.backbone in OTHER_NETWORKS else "none"
        importance = self.spec.settings.get("importance", "none")
        others = [other for other in (self.spec.weighting, noise, importance, network) if other != "none"]
        policy = self.spec.support_policy
        others += [f"{policy}-policy"] * (policy != "none")
        return "-".join([self.spec.method, self.spec.task_kind, norm, *others])

    @cached_property
    def learner(self) -> Learner:
        return build_learner(self.spec)

    @cached_property
    def objective(self) -> Objective:
        return build_objective(self.learner, self.training)

    @cached_property
    def recomputed(self) -> Objective:
        """The same objective where inner steps are recomputed."""
        learner = build_learner(self.spec)
        assert isinstance(learner, GradientLearner)
        return build_objective(recomputing(learner), self.training)

    def params(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> Params:
        """Parameters away from their initial values, so that a norm's shift or a running mean left out would show."""
        generator = torch.Generator().manual_seed(seed)
        params = {**self.learner.init(generator), **self.objective.init(generator)}
        noise = {name: 0.1 * torch.randn(value.shape, generator=generator) for name, value in params.items()}
        return {
            name: (value + (noise[name].abs() if "variance" in name else noise[name])).to(dtype)
            for name, value in params.items()
        }

    def episodes(self, tasks: int = 3, shots: int = 2, queries: int = 3, seed: int = 1, ways: int = 3) -> Episodes:
        """Random tasks in float64 with distinct classes."""
        generator = torch.Generator().manual_seed(seed)
        shape = self.spec.input.shape
        if self.spec.task_kind == "regression":
            support = torch.randn(tasks, shots * 3, *shape, generator=generator, dtype=torch.float64)
            query = torch.randn(tasks, queries * 3, *shape, generator=generator, dtype=torch.float64)
            return _episodes(support, support.sin(), query, query.sin(), 0, 0)
        centres = torch.randn(tasks, ways, 1, *shape, generator=generator, dtype=torch.float64)
        noise = torch.randn(tasks, ways, shots + queries, *shape, generator=generator, dtype=torch.float64)
        x = centres + 0.5 * noise
        y = torch.arange(ways).unsqueeze(1).expand(tasks, ways, shots + queries)
        return _episodes(
            x[:, :, :shots].flatten(1, 2),
            y[:, :, :shots].flatten(1),
            x[:, :, shots:].flatten(1, 2),
            y[:, :, shots:].flatten(1),
            ways,
            self.spec.max_ways,
        )


TRAIN_CLASSES = 7
"""Of the data that the episodes are thought to come from."""


def _episodes(x: Tensor, y: Tensor, query: Tensor, targets: Tensor, ways: int, max_ways: int) -> Episodes:
    tasks = x.shape[0]
    support = Support(
        x, y, torch.ones(x.shape[:2], dtype=torch.bool), torch.full((tasks,), ways, dtype=torch.int64), max_ways
    )
    classes = (torch.arange(ways) + torch.arange(tasks).unsqueeze(1)) % TRAIN_CLASSES if ways else None
    return Episodes(support, Query(query, torch.ones(query.shape[:2], dtype=torch.bool)), targets, classes)


def _cases() -> list[Case]:
    cases = []
    for name in methods:
        info = methods[name].info
        image = LearnerSpec(
            method=name,
            input=InputSpec(IMAGE),
            max_ways=4,
            train_classes=TRAIN_CLASSES,
            backbone="conv4",
            backbone_settings={"width": 8, "downsample": "max_pool", "norm": "task"},
            settings=small_settings(name, rate=RATES.get(name, 0.05)),
        )
        if "classification" in info.tasks:
            cases.append(image)
            cases += [
                replace(image, backbone_settings={"width": 8, "downsample": "stride", "norm": norm})
                for norm in (sorted({*norms} - {"task"}) if name in TRIED_WITH_EVERY_NORM else NORMS)
            ]
        if "regression" in info.tasks:
            cases.append(
                replace(
                    image,
                    input=InputSpec((1,)),
                    task_kind="regression",
                    max_ways=0,
                    target_size=1,
                    backbone="mlp",
                    backbone_settings={"widths": [8, 8]},
                )
            )
    features = LearnerSpec("protonet", InputSpec((6,)), max_ways=4, train_classes=TRAIN_CLASSES, backbone="scaled")
    adapted = replace(features, method="lr-d2", backbone="adapter", backbone_settings={"normalise": True})
    weighed = [replace(each, weighting="leave_one_out") for each in (features, adapted)]
    of_steps = {"settings": small_settings("anil", rate=0.05), "backbone": "mlp", "backbone_settings": {"widths": [8]}}
    weighed.append(replace(weighed[0], method="anil", **of_steps))
    noise = {"noise": "meta_dropout"}
    noisy = LearnerSpec(
        "maml",
        InputSpec(IMAGE),
        max_ways=4,
        backbone_settings={"width": 8, "downsample": "stride", "norm": "task", **noise},
        settings={"steps": 2, "rate": 0.05},
    )
    noisy_head = replace(noisy, method="anil", backbone="mlp", backbone_settings={"widths": [8], **noise})
    online = replace(features, method="anml", backbone="mlp", backbone_settings={"widths": [8]})
    held = replace(online, settings={"importance": "mas", "rate": 0.3})
    copied = replace(
        noisy,
        backbone_settings={"width": 8, "downsample": "stride", "norm": "task"},
        support_policy="learned",
        policy_settings={"copies": 2},
    )
    enlarged = [copied, replace(copied, method="protonet", settings={}), replace(copied, method="r2d2", settings={})]
    blocks = [
        {"width": 8, "downsample": "stride", "edges": ["conv3x3", "mean3x3", "conv1x1"]},
        {"width": 6, "entry": "conv1x1", "downsample": "mean_pool", "edges": ["none", "skip", "conv3x3"]},
        {"width": 4, "edges": ["skip"]},
    ]
    cell = replace(noisy, backbone="cell", backbone_settings={"blocks": blocks, "norm": "task"})
    of_cells = [
        cell,
        replace(cell, method="protonet", backbone_settings={"blocks": blocks, "norm": "batch"}, settings={}),
    ]
    bare = replace(noisy, backbone_settings={})
    of_networks = [
        replace(each, backbone=backbone, backbone_settings={**settings, "norm": norm})
        for backbone, settings in TINY.items()
        for each, norm in ((bare, "task"), (replace(bare, method="protonet", settings={}), "batch"))
    ]
    more = (*weighed, noisy, noisy_head, held, *enlarged, *of_cells, *of_networks)
    return [Case(spec) for spec in (*cases, features, adapted, *more)]


CASES = _cases()


def wave_case(
    method: str,
    widths: Sequence[int],
    settings: Mapping[str, Any],
    training: Mapping[str, Any] = MappingProxyType({}),
    **backbone: Any,
) -> Case:
    """A method on a small network of numbers, for regression of waves."""
    spec = LearnerSpec(
        method,
        InputSpec((1,)),
        "regression",
        max_ways=0,
        target_size=1,
        backbone="mlp",
        backbone_settings={"widths": [*widths], **backbone},
        settings=settings,
    )
    return Case(spec, training)
