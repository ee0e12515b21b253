"""Pre-training: one classifier for all training classes, whose features serve new tasks."""

from typing import Any

import torch
from torch import Tensor

from innerloop_learner.backbones.backbone import Features
from innerloop_learner.heads import cosine_logits
from innerloop_learner.layers import glorot, linear
from innerloop_learner.learner import Learner
from innerloop_learner.losses import classification_loss
from innerloop_learner.objectives.objective import Objective, Outcome, Stage, averaged, objectives
from innerloop_learner.settings import SettingsError
from innerloop_learner.tasks import Episodes, Params

WEIGHT, BIAS = "classifier.weight", "classifier.bias"


@objectives.register("all_classes")
class AllClasses(Objective):
    """Ordinary classification of all training classes (Chen et al. 2019, section 3.2).

    The loss is that of every example of an episode:

        loss = cross-entropy of W f(x) + b over all training classes

    This trains learners that do not meta-learn. The classifier W, b is of no use for new classes, so it belongs to the
    objective and is not served.

    Raises:
        SettingsError: the data has no training classes.
    """

    needs_classes = True

    def __init__(self, learner: Learner, settings: Any) -> None:
        super().__init__(learner, settings)
        if not learner.spec.train_classes:
            raise SettingsError(f"{learner.info.name} tells all training classes apart, but the data names none")

    def init(self, generator: torch.Generator) -> Params:
        """See Objective.init: the classifier, [K, F] and [K] for K training classes."""
        classes, features = self.learner.spec.train_classes, self.learner.backbone.features
        return {WEIGHT: glorot(generator, classes, features), BIAS: torch.zeros(classes)}

    def __call__(self, params: Params, episodes: Episodes, stage: Stage) -> Outcome:
        """See Objective.__call__; the outputs are the queries' logits for the classes of their episode."""
        support, query, classes = episodes.support, episodes.query, episodes.classes
        if classes is None:
            raise ValueError("pre-training needs episodes that name their classes")
        features = self._features(self.asking(params, stage), episodes)
        logits = self._logits(params, features.values)
        labels = classes.gather(1, torch.cat([support.y, episodes.targets], 1))
        loss = classification_loss(logits, labels, torch.cat([support.mask, query.mask], 1)).mean()
        answers = logits[:, support.x.shape[1] :]
        outputs = answers.gather(2, classes.unsqueeze(1).expand(-1, answers.shape[1], -1))
        return Outcome(loss, outputs, averaged(params, features.statistics))

    def _features(self, params: Params, episodes: Episodes) -> Features:
        """Features of all examples, the support set's first, and the values of the buffers that fit them."""
        support, query, backbone = episodes.support, episodes.query, self.learner.backbone
        weights = self.learner.example_weights(support)
        if not backbone.support_statistics:
            every = torch.cat([weights, query.mask.to(weights.dtype)], 1)
            together: Features = backbone.refitted(params, torch.cat([support.x, query.x], 1), every)
            return together
        # A norm that uses the statistics of its examples normalises queries by the support set, as in serving.
        of_support = backbone.apply(params, support.x, weights)
        of_queries = backbone.apply(params, query.x, query.mask, of_support.statistics)
        return Features(torch.cat([of_support.values, of_queries.values], 1), {})

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
