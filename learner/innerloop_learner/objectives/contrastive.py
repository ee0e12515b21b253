"""The contrastive loss: examples of one class attract each other, all others repel."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.layers import glorot, linear
from innerloop_learner.losses import UNUSED_LOGIT, weighted_mean
from innerloop_learner.objectives.objective import Objective, Outcome, Stage, averaged, objectives, refitted
from innerloop_learner.settings import SettingsError, setting
from innerloop_learner.tasks import Episodes, Params

HIDDEN, OUT = "projection.hidden", "projection.out"


@dataclass(frozen=True)
class ContrastiveSettings:
    """Settings of the contrastive loss."""

    temperature: float = setting(0.5, "divisor of cosine similarities", least=0.001)
    projection: int = setting(128, "features of the projection that is compared", least=1)


@objectives.register("contrastive")
class Contrastive(Objective):
    """NT-Xent, which tells images apart by cosines (Chen et al. 2020, equation 1).

    It is a normalised, temperature-scaled cross-entropy, on an episode's queries:

        loss = mean over pairs (i, j) of one class of   -log( exp(s_ij) / sum_{k != i} exp(s_ik) )
        s_ij = cos(g(f(x_i)), g(f(x_j))) / temperature,   g(h) = V relu(U h + u) + v

    Without labels, a class is an image and its queries are augmentations of it. Two queries per class are SimCLR's
    pairs; with more, and with classes of labelled data, this is the loss of Khosla et al. 2020 (equation 2). The
    projection g belongs to the objective and is not served. Support examples only give what normalises queries, as in
    serving.

    Raises:
        SettingsError: called with a single query per class, which has no pairs.
    """

    settings_class = ContrastiveSettings
    settings: ContrastiveSettings
    least_queries = 2
    gives_answers = False

    def init(self, generator: torch.Generator) -> Params:
        """See Objective.init: the projection, [F, F] and [P, F] with biases."""
        features, projected = self.learner.backbone.features, self.settings.projection
        return {
            f"{HIDDEN}.weight": glorot(generator, features, features),
            f"{HIDDEN}.bias": torch.zeros(features),
            f"{OUT}.weight": glorot(generator, projected, features),
            f"{OUT}.bias": torch.zeros(projected),
        }

    def __call__(self, params: Params, episodes: Episodes, stage: Stage) -> Outcome:
        """See Objective.__call__; the outputs are each query's similarity to the nearest other one of each class."""
        query, targets = episodes.query, episodes.targets
        if query.x.shape[1] < self.least_queries * episodes.support.max_ways:
            raise SettingsError("the contrastive loss compares queries of one class; raise --queries to 2 or more")
        fresh = refitted(self.learner, params, episodes.support)
        projected = self._projected({**params, **fresh}, episodes, stage)
        others = ~torch.eye(query.x.shape[1], dtype=torch.bool, device=projected.device) & query.mask.unsqueeze(1)
        similarities = projected @ projected.transpose(1, 2) / self.settings.temperature
        similarities = similarities.masked_fill(~others, UNUSED_LOGIT)  # [T, Q, Q]
        pairs = others & query.mask.unsqueeze(2) & (targets.unsqueeze(1) == targets.unsqueeze(2))
        each = -similarities.log_softmax(-1).masked_fill(~pairs, 0.0).sum(-1) / pairs.sum(-1).clamp(min=1)
        nearest = _nearest_by_class(similarities.detach(), episodes)
        return Outcome(weighted_mean(each, query.mask).mean(), nearest, averaged(params, fresh))

    def _projected(self, params: Params, episodes: Episodes, stage: Stage) -> Tensor:
        """The queries' projections [T, Q, P], of length 1."""
        support, query, backbone = episodes.support, episodes.query, self.learner.backbone
        statistics: Params = {}
        if backbone.support_statistics:
            statistics = backbone.apply(params, support.x, self.learner.example_weights(support)).statistics
        features = backbone.apply(self.asking(params, stage), query.x, query.mask, statistics).values
        hidden = F.relu(linear(features, params[f"{HIDDEN}.weight"], params[f"{HIDDEN}.bias"]))
        return F.normalize(linear(hidden, params[f"{OUT}.weight"], params[f"{OUT}.bias"]), dim=-1)


def _nearest_by_class(similarities: Tensor, episodes: Episodes) -> Tensor:
    """The largest of the similarities [T, Q, Q] to the queries of each class, [T, Q, W]."""
    tasks, queries = episodes.targets.shape
    classes = episodes.targets.unsqueeze(1).expand(tasks, queries, queries)
    least = similarities.new_full((tasks, queries, episodes.support.max_ways), UNUSED_LOGIT)
    return least.scatter_reduce(2, classes, similarities, "amax")
