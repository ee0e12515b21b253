"""Pre-training: one classifier for all training classes, whose features serve new tasks."""

import torch
from torch import Tensor

from innerloop_learner.layers import glorot, linear
from innerloop_learner.learner import Learner, Objective, Stage
from innerloop_learner.losses import classification_loss
from innerloop_learner.norms import running_average
from innerloop_learner.settings import SettingsError
from innerloop_learner.spec import LearnerSpec
from innerloop_learner.tasks import Episodes, Params

WEIGHT, BIAS = "classifier.weight", "classifier.bias"


class Pretrained(Learner):
    """Mixed into learners that do not learn to learn: their outer loss is that of ordinary classification.

        loss = cross-entropy of (W f(x) + b) over all training classes, on every example of an episode

    The classifier is of no use for new classes; bundles leave it out.
    """

    def __init__(self, spec: LearnerSpec) -> None:
        super().__init__(spec)
        if not spec.train_classes:
            raise SettingsError(f"{self.info.name} tells all training classes apart, but the data names none")

    def init(self, generator: torch.Generator) -> Params:
        """See Learner.init."""
        classes, features = self.spec.train_classes, self.backbone.features
        return {
            **self.backbone.init(generator),
            WEIGHT: glorot(generator, classes, features),
            BIAS: torch.zeros(classes),
        }

    def training_only(self) -> frozenset[str]:
        """See Learner.training_only."""
        return frozenset({WEIGHT, BIAS})

    def objective(self, params: Params, episodes: Episodes, stage: Stage) -> Objective:
        """See Learner.objective; the outputs are the queries' logits for the classes of their episode."""
        del stage
        support, query, classes = episodes.support, episodes.query, episodes.classes
        if classes is None:
            raise ValueError("pre-training needs episodes that name their classes")
        fresh = self.refit_buffers(params, support)
        in_use = {**params, **fresh}
        # As in serving, queries are normalised by the support set where a norm uses the examples at hand.
        given = self.backbone.apply(in_use, support.x, support.mask)
        asked = self.backbone.apply(in_use, query.x, query.mask, given.statistics)
        mask = torch.cat([support.mask, query.mask], 1)
        logits = self._all_logits(in_use, torch.cat([given.values, asked.values], 1))
        labels = classes.gather(1, torch.cat([support.y, episodes.targets], 1))
        loss = classification_loss(logits, labels, mask).mean()
        of_queries = logits[:, support.x.shape[1] :]
        outputs = of_queries.gather(2, classes.unsqueeze(1).expand(-1, of_queries.shape[1], -1))
        return Objective(loss, outputs, running_average(params, fresh))

    def _all_logits(self, params: Params, features: Tensor) -> Tensor:
        """Logits [T, N, K] for the K training classes."""
        return linear(features, params[WEIGHT], params[BIAS])
