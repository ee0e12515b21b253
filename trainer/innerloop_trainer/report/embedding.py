"""A map of what a backbone makes of unseen classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.decomposition import PCA

from innerloop_learner.gradient_learner import GradientLearner
from innerloop_trainer.data import DataError, EpisodeShape
from innerloop_trainer.report.subject import Subject

MOST_CLASSES, MOST_EXAMPLES = 10, 20
"""Classes of the map, and examples of each: what can still be told apart by colour and form."""


@dataclass(frozen=True)
class Map:
    """Features of examples in a plane, by principal components.

    Attributes:
        names: names of the classes.
        points: places of the examples of each class [N, 2].
        explained: share of the variance that the plane holds.
    """

    names: Sequence[str]
    points: Sequence[np.ndarray]
    explained: float


@torch.no_grad()
def embedding_map(subject: Subject) -> Map | None:
    """The features of examples of a few unseen classes, as the backbone gives them before anything adapts.

    Returns:
        the map; None where there are no classes, or features have no two dimensions.
    """
    if subject.regression or not subject.sampler.labelled:
        return None
    ways = min(MOST_CLASSES, subject.sampler.ways_anywhere)
    examples = next((each for each in range(MOST_EXAMPLES, 1, -1) if _possible(subject, ways, each)), 0)
    if not examples:
        return None
    _, generator = next(subject.batches(1))
    drawn = subject.sampler.sample(EpisodeShape(ways, 1, examples - 1), 1, generator)
    x = torch.cat([drawn.support.x, drawn.query.x], 1)
    labels = torch.cat([drawn.support.y, drawn.targets], 1)[0].cpu().numpy()
    real = torch.ones(x.shape[:2], device=x.device)
    learner, params = subject.bundle.learner, subject.bundle.params
    if isinstance(learner, GradientLearner):  # some have parameters of their own for each step
        params = learner.at_step(params, 0)
    features = learner.backbone.apply(params, x, real).values[0].double().cpu().numpy()
    if min(features.shape) < 2 or not np.isfinite(features).all() or not features.std(0).any():
        return None
    analysis = PCA(2, random_state=0)
    places = analysis.fit_transform(features)
    classes = range(ways) if drawn.classes is None else drawn.classes[0].tolist()
    names = [subject.sampler.names[each] for each in classes]
    points = [places[labels == label] for label in range(ways)]
    return Map(names, points, float(analysis.explained_variance_ratio_.sum()))


def _possible(subject: Subject, ways: int, examples: int) -> bool:
    try:
        subject.sampler.check(EpisodeShape(ways, 1, examples - 1))
    except DataError:
        return False
    return True
