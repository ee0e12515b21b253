"""Pre-training: one classifier for all training classes, whose features serve new tasks."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from innerloop_learner.heads import cosine_logits
from innerloop_learner.layers import glorot, linear
from innerloop_learner.learner import Learner
from innerloop_learner.losses import classification_loss
from innerloop_learner.objectives.objective import Objective, Outcome, Stage, averaged, objectives
from innerloop_learner.settings import SettingsError, setting
from innerloop_learner.tasks import Episodes, Params

WEIGHT, BIAS = "classifier.weight", "classifier.bias"
TURNS_WEIGHT, TURNS_BIAS = "turns.weight", "turns.bias"

TURNS = 4
"""Quarter turns that an image is told apart by: none, one, two and three."""


@dataclass(frozen=True)
class AllClassesSettings:
    """Settings of the classification of all training classes."""

    rotation_weight: float = setting(
        0.0, "weight of a loss by which the features also tell how far an image is turned; 0 for none", least=0.0
    )


class _Embedded(NamedTuple):
    """The features of all examples of episodes, and what normalises further ones.

    Attributes:
        features: [T, S + Q, F], those of the support set first.
        buffers: the values of the buffers that fit the examples.
        statistics: statistics of the support set; empty if norms use none.
    """

    features: Tensor
    buffers: Params
    statistics: Params


@objectives.register("all_classes")
class AllClasses(Objective):
    """Ordinary classification of all training classes (Chen et al. 2019, section 3.2).

    The loss is that of every example of an episode:

        loss = cross-entropy of W f(x) + b over all training classes

    This trains learners that do not meta-learn. The classifier W, b is of no use for new classes, so it belongs to the
    objective and is not served.

    With a `rotation_weight` a, a second classifier V, v tells by how many quarter turns an image is turned (Gidaris et
    al. 2019, section 3.2). It is not served either:

        loss + a * mean over r = 0, 1, 2, 3 of the cross-entropy of V f(x turned by 90 r degrees) + v over turns

    Turned images are normalised by the statistics of upright ones, as any image is when served. Normalised by their
    own, they would have the means that upright images have, and means are what tells them apart.

    Raises:
        SettingsError: the data has no training classes, or no square images to turn.
    """

    settings_class = AllClassesSettings
    settings: AllClassesSettings
    needs_classes = True

    def __init__(self, learner: Learner, settings: Any) -> None:
        super().__init__(learner, settings)
        if not learner.spec.train_classes:
            raise SettingsError(f"{learner.info.name} tells all training classes apart, but the data names none")
        shape = learner.spec.input.shape
        if self.settings.rotation_weight and (len(shape) != 3 or shape[1] != shape[2]):
            raise SettingsError(
                f"rotation_weight turns square images, and inputs have the shape {tuple(shape)}; leave it, or read "
                f"images with ?size=N"
            )

    def init(self, generator: torch.Generator) -> Params:
        """See Objective.init: the classifier, [K, F] and [K] for K training classes, and that of turns, [4, F] and [4].

        The latter is left out if its loss has no weight.
        """
        classes, features = self.learner.spec.train_classes, self.learner.backbone.features
        params = {WEIGHT: glorot(generator, classes, features), BIAS: torch.zeros(classes)}
        if self.settings.rotation_weight:
            params |= {TURNS_WEIGHT: glorot(generator, TURNS, features), TURNS_BIAS: torch.zeros(TURNS)}
        return params

    def __call__(self, params: Params, episodes: Episodes, stage: Stage) -> Outcome:
        """See Objective.__call__; the outputs are the queries' logits for the classes of their episode."""
        support, query, classes = episodes.support, episodes.query, episodes.classes
        if classes is None:
            raise ValueError("pre-training needs episodes that name their classes")
        asking = self.asking(params, stage)
        embedded = self._embedded(asking, episodes)
        logits = self._logits(params, embedded.features)
        labels = classes.gather(1, torch.cat([support.y, episodes.targets], 1))
        mask = torch.cat([support.mask, query.mask], 1)
        loss = classification_loss(logits, labels, mask).mean()
        if self.settings.rotation_weight:
            loss = loss + self.settings.rotation_weight * self._rotation_loss(asking, episodes, embedded, mask)
        answers = logits[:, support.x.shape[1] :]
        outputs = answers.gather(2, classes.unsqueeze(1).expand(-1, answers.shape[1], -1))
        return Outcome(loss, outputs, averaged(params, embedded.buffers))

    def _embedded(self, params: Params, episodes: Episodes) -> _Embedded:
        support, query, backbone = episodes.support, episodes.query, self.learner.backbone
        weights = self.learner.example_weights(support)
        if not backbone.support_statistics:
            every = torch.cat([weights, query.mask.to(weights.dtype)], 1)
            together = backbone.refitted(params, torch.cat([support.x, query.x], 1), every)
            return _Embedded(together.values, together.statistics, {})
        # A norm that uses the statistics of its examples normalises queries by the support set, as in serving.
        of_support = backbone.apply(params, support.x, weights)
        of_queries = backbone.apply(params, query.x, query.mask, of_support.statistics)
        return _Embedded(torch.cat([of_support.values, of_queries.values], 1), {}, of_support.statistics)

    def _rotation_loss(self, params: Params, episodes: Episodes, upright: _Embedded, mask: Tensor) -> Tensor:
        """The loss of telling by how many quarter turns each example [T, N] is turned, averaged over the turns."""
        x = torch.cat([episodes.support.x, episodes.query.x], 1)
        fitted = {**params, **upright.buffers}
        features = [upright.features]
        for turns in range(1, TURNS):
            turned = x.rot90(turns, (-2, -1))
            features.append(self.learner.backbone.apply(fitted, turned, mask, upright.statistics).values)
        logits = linear(torch.cat(features, 1), params[TURNS_WEIGHT], params[TURNS_BIAS])  # [T, 4 N, 4]
        labels = torch.arange(TURNS, device=x.device).repeat_interleave(x.shape[1]).expand(x.shape[0], -1)
        return classification_loss(logits, labels, mask.repeat(1, TURNS)).mean()

    def _logits(self, params: Params, features: Tensor) -> Tensor:
        """Logits [T, N, K] of features [T, N, F] for the K training classes."""
        return linear(features, params[WEIGHT], params[BIAS])


@objectives.register("all_classes_by_cosine")
class AllClassesByCosine(AllClasses):
    """Ordinary classification by cosine similarities (Chen et al. 2019, section 3.3).

    It is `AllClasses` with the learner's setting `scale`.
    """

    def _logits(self, params: Params, features: Tensor) -> Tensor:
        return cosine_logits(self.learner.settings.scale, features, params[WEIGHT], params[BIAS])
