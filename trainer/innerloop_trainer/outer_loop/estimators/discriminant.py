"""A linear map of features that tells the training classes apart, in closed form."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from innerloop_learner.backbones import adapter
from innerloop_learner.backbones.adapter import Adapter
from innerloop_learner.objectives import Objective, Stage
from innerloop_learner.parts import current_part
from innerloop_learner.settings import setting
from innerloop_learner.tasks import Episodes, Params
from innerloop_trainer.outer_loop.estimators.estimator import Estimate, Estimator, estimators

COUNTS, SUMS, MOMENT, FITTED = "counts", "sums", "moment", "fitted"

GROWTH = 1.5
"""The map is fitted again when there are this many times as many examples, since each fit takes F^3 operations."""


@dataclass(frozen=True)
class DiscriminantSettings:
    """How much the map differs from leaving features as they are."""

    shrinkage: float = setting(
        3.0, "weight of equal variances beside the variances within classes; more changes features less", least=1e-3
    )
    stretch: float = setting(
        0.5, "share by which the direction that tells the training classes apart best is stretched", least=0.0
    )


@estimators.register("discriminant")
class Discriminant(Estimator):
    """Fits `adapter` to the training classes in closed form (after Fisher 1936).

    It is a shrunk discriminant analysis and needs no gradients.

    With the mean m of the class means, their covariance B, and the covariance S within classes, over all examples of
    the episodes so far, both [F, F]:

        W = (S + a (tr S / F) I)^-1/2,   WBW = V diag(w) V',   M = c V (1 + b sqrt(w / max w)) V' W,   f(x) = M (x - m)

    W makes differences within classes alike in all directions (Fisher 1936), as far as the shrinkage a lets it (Ledoit
    and Wolf 2004). The other factor stretches the directions between classes by up to b, and projects nothing away that
    unseen classes may need. The factor c leaves directions of average variance as long as they are.

    There are no steps to overfit few classes with: a few passes over the examples are enough. Other parameters than
    those of the map stay as they are.

    Raises:
        ValueError: the learner's backbone is not an adapter that normalises, or it does not classify.
    """

    settings_class = DiscriminantSettings
    needs_classes = True
    settings: DiscriminantSettings
    in_parts = True

    def __init__(self, objective: Objective, settings: Any) -> None:
        super().__init__(objective, settings)
        learner = objective.learner
        if not isinstance(learner.backbone, Adapter) or not learner.backbone.settings.normalise:
            raise ValueError("it fits the backbone adapter: add --backbone adapter --backbone-set normalise=true")
        if learner.spec.task_kind != "classification" or learner.spec.train_classes < 2:
            raise ValueError("it tells training classes apart, and needs at least two")
        self._classes, self._features = learner.spec.train_classes, learner.backbone.features

    def start(self, params: Params) -> Params:
        """See Estimator.start: counts [K], sums [K, F] and the second moment [F, F] of examples, of K classes."""
        zeros = params[adapter.BIAS].new_zeros
        return {
            COUNTS: zeros(self._classes, dtype=torch.float64),
            SUMS: zeros(self._classes, self._features, dtype=torch.float64),
            MOMENT: zeros(self._features, self._features, dtype=torch.float64),
            FITTED: zeros((), dtype=torch.float64),
        }

    @torch.no_grad()
    def estimate(self, params: Params, carried: Params, episodes: Episodes, stage: Stage) -> Estimate:
        """See Estimator.estimate; the map comes as new values of buffers."""
        seen = _gathered(carried, episodes)
        fitted = self._fit(params, seen) if seen[COUNTS].sum() >= GROWTH * seen[FITTED] else {}
        if fitted:
            seen[FITTED] = seen[COUNTS].sum()
        outcome = self.objective({**params, **fitted}, episodes, stage)
        return Estimate({}, fitted, outcome.loss, outcome.outputs, seen)

    def _fit(self, params: Params, seen: Params) -> Params:
        """Weight and bias of the adapter."""
        present = seen[COUNTS] > 0
        counts, sums = seen[COUNTS][present], seen[SUMS][present]
        means = sums / counts.unsqueeze(1)
        within = (seen[MOMENT] - sums.T @ means) / counts.sum()
        centre = means.mean(0)
        between = (means - centre).T @ (means - centre) / len(means)
        stretched = discriminant_map(within, between, self.settings.shrinkage, self.settings.stretch)
        weight = stretched - torch.eye(self._features, dtype=stretched.dtype, device=stretched.device)
        values = {adapter.WEIGHT: weight, adapter.BIAS: -(stretched @ centre)}
        return {name: value.to(params[name].dtype) for name, value in values.items()}


def discriminant_map(within: Tensor, between: Tensor, shrinkage: float, stretch: float) -> Tensor:
    """The matrix M [F, F] of `Discriminant`, for covariances within and between classes [F, F]."""
    variance = within.diagonal().mean().clamp(min=torch.finfo(within.dtype).tiny)
    identity = torch.eye(len(within), dtype=within.dtype, device=within.device)
    variances, directions = torch.linalg.eigh(within / variance + shrinkage * identity)
    whitening = directions * ((1 + shrinkage) / variances).sqrt() @ directions.T
    ratios, axes = torch.linalg.eigh(whitening @ between @ whitening)
    ratios = ratios.clamp(min=0)
    factors = 1 + stretch * (ratios / ratios.max().clamp(min=torch.finfo(ratios.dtype).tiny)).sqrt()
    found: Tensor = axes * factors @ axes.T @ whitening
    return found


def _gathered(carried: Params, episodes: Episodes) -> Params:
    """The statistics of `Discriminant.start` with the examples of more episodes, support and query alike."""
    support, query, classes = episodes.support, episodes.query, episodes.classes
    if classes is None:
        raise ValueError("the estimator discriminant needs episodes that name their classes")
    x = torch.cat([support.x, query.x], 1).flatten(2)  # [T, S + Q, F]
    real = torch.cat([support.mask, query.mask], 1)
    labels = classes.gather(1, torch.cat([support.y, episodes.targets], 1))[real]
    examples = x[real].double()  # [N, F]
    found = {
        COUNTS: torch.zeros_like(carried[COUNTS]).index_add(0, labels, torch.ones_like(labels, dtype=torch.float64)),
        SUMS: torch.zeros_like(carried[SUMS]).index_add(0, labels, examples),
        MOMENT: examples.T @ examples,
    }
    part = current_part()
    return {**carried, **{name: carried[name] + part.sum(value) for name, value in found.items()}}
