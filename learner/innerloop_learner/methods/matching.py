"""Matching networks."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.extension import appended, appended_members
from innerloop_learner.heads import mask_unused_ways
from innerloop_learner.learner import Learner, MethodInfo, methods
from innerloop_learner.loops import Index, example, repeat
from innerloop_learner.losses import log_weights
from innerloop_learner.recurrent import LSTMCell, LSTMState, blend
from innerloop_learner.settings import setting
from innerloop_learner.state import STATISTICS, WAYS, prefixed, section
from innerloop_learner.tasks import Adapted, Params, Query, Support, TaskState

EMBEDDINGS, VOTES = "embeddings", "votes"
LOG_SCALE = "attention.log_scale"


@methods.register("matching")
class MatchingNetwork(Learner):
    """Attends to the support set and answers with its labels (Vinyals et al. 2016, equation 1 and section 2.1.1).

        P(y | x) = sum_i a(x, x_i) [y_i = y],   a = softmax_i (s cos(f(x), g(x_i)) + log w_i)

    The weights w of examples (`Learner.example_weights`) let each class have the same say. Logits are logarithms of the
    sums. The scale s is learned; with s = 1, as published, attention could never be sharp.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        name="matching",
        family="metric",
        paper="Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra: Matching Networks for One Shot Learning. NIPS 2016",
        gradients_at_serving=False,
        order_matters=False,
        ways_can_change="any",
        tasks=("classification",),
        extends=True,
    )
    embeds_alone = True

    def init(self, generator: torch.Generator) -> Params:
        """See Learner.init."""
        return {**self.backbone.init(generator), LOG_SCALE: torch.tensor(math.log(10.0))}

    def adapt(self, params: Params, support: Support, steps: int | None = None) -> Adapted:
        """See Learner.adapt; state: embeddings [T, S, F] and votes [T, S, W], an example's weight for its class."""
        del steps
        examples = self.example_weights(support)
        features = self.backbone.apply(params, support.x, examples)
        embeddings = self._embed_support(params, features.values, examples)
        votes = self.votes(support.members(examples.dtype))
        statistics = prefixed(STATISTICS, features.statistics)
        return Adapted({EMBEDDINGS: embeddings, VOTES: votes, WAYS: support.ways, **statistics}, None)

    def _extend(self, params: Params, state: TaskState, support: Support, steps: int | None) -> Adapted:
        """See Learner.extend: examples are appended, and votes shared out again."""
        del steps
        examples = self.example_weights(support)
        features = self.backbone.apply(params, support.x, examples).values
        embeddings = appended(state[EMBEDDINGS], self._embed_support(params, features, examples))
        votes = self.votes(appended_members(state[VOTES], support))
        return Adapted({EMBEDDINGS: embeddings, VOTES: votes, WAYS: support.ways}, None)

    def predict(self, params: Params, state: TaskState, query: Query) -> Tensor:
        """See Learner.predict."""
        features = self.backbone.apply(params, query.x, query.mask, section(state, STATISTICS)).values
        votes, memory = state[VOTES], state[EMBEDDINGS]
        embeddings = self._embed_queries(params, features, memory, log_weights(votes.sum(-1)))
        cosines = F.normalize(embeddings, dim=-1) @ F.normalize(memory, dim=-1).transpose(1, 2)  # [T, Q, S]
        similarities = params[LOG_SCALE].exp() * cosines
        by_class = similarities.unsqueeze(-1) + log_weights(votes).unsqueeze(1)  # [T, Q, S, W]
        return mask_unused_ways(by_class.logsumexp(2), state[WAYS], -torch.inf)

    def _embed_support(self, params: Params, features: Tensor, examples: Tensor) -> Tensor:
        """g: embeddings [T, S, F] of the support set's features, given the weights of its examples [T, S]."""
        del params, examples
        return features

    def _embed_queries(self, params: Params, features: Tensor, memory: Tensor, log_votes: Tensor) -> Tensor:
        """f: embeddings [T, Q, F] of features, given the support set's [T, S, F] and their log weights [T, S]."""
        del params, memory, log_votes
        return features


@dataclass(frozen=True)
class FullContextSettings:
    """How queries read the support set."""

    reads: int = setting(3, "times that a query attends to the support set", least=1)


@methods.register("matching-fce")
class FullContextMatchingNetwork(MatchingNetwork):
    """Matching networks that see the support set as a whole (Vinyals et al. 2016, section 2.1.2, appendix A).

    The support set is read forwards and backwards, in the order it comes in; queries attend to it K times:

        g(x_i) = h_i + h'_i + f'(x_i),                h and h' of LSTMs over the features f'(x_1), f'(x_2), ...
        h_k = LSTM([f'(x), r_{k-1}], h_{k-1}) + f'(x),   f(x) = h_K,
        r_k = sum_i softmax_i(h_k . g(x_i) + log w_i) g(x_i)

    The weights w let each class have the same say in what queries attend to. In reading the support set, an example
    takes the LSTMs the share w of the way, so that more examples of one class still change embeddings a little.
    """

    info = replace(
        MatchingNetwork.info,
        name="matching-fce",
        order_matters=True,
        extends=False,
    )
    settings_class = FullContextSettings
    settings: FullContextSettings

    @property
    def _cells(self) -> tuple[LSTMCell, LSTMCell, LSTMCell]:
        """Forward, backward, and that of the queries."""
        size = self.backbone.features
        return LSTMCell("forward", size, size), LSTMCell("backward", size, size), LSTMCell("query", 2 * size, size)

    def init(self, generator: torch.Generator) -> Params:
        """See Learner.init."""
        params = super().init(generator)
        for cell in self._cells:
            params |= cell.init(generator)
        return params

    def _embed_support(self, params: Params, features: Tensor, examples: Tensor) -> Tensor:
        forward, backward, _ = self._cells
        read = _read(forward, params, features, examples)
        back = _read(backward, params, features.flip(1), examples.flip(1)).flip(1)
        return features + read + back

    def _embed_queries(self, params: Params, features: Tensor, memory: Tensor, log_votes: Tensor) -> Tensor:
        cell = self._cells[2]
        state = cell.start(features)
        recalled = torch.zeros_like(features)
        for _ in range(self.settings.reads):
            state = cell.step(params, torch.cat([features, recalled], -1), state)
            state = LSTMState(state.hidden + features, state.cell)
            scores = state.hidden @ memory.transpose(1, 2) + log_votes.unsqueeze(1)
            recalled = scores.softmax(-1) @ memory
        return state.hidden


def _read(cell: LSTMCell, params: Params, features: Tensor, examples: Tensor) -> Tensor:
    """Hidden states [T, S, F] of a cell that reads features [T, S, F] in order; examples of weight 0 are skipped."""

    def step(index: Index, carried: Params) -> tuple[Params, Params]:
        new = cell.step(params, example(features, index), LSTMState(**carried))
        after = blend(carried, new._asdict(), example(examples, index))
        return after, {"read": after["hidden"]}

    _, left = repeat(step, cell.start(features[:, 0])._asdict(), features.shape[1])
    return left["read"].transpose(0, 1)
