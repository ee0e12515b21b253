"""Memory-augmented neural network."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.heads import LinearHead, mask_unused_ways
from innerloop_learner.layers import glorot, linear
from innerloop_learner.learner import Learner, MethodInfo, methods
from innerloop_learner.loops import Index, example, repeat
from innerloop_learner.recurrent import LSTMCell, LSTMState, blend
from innerloop_learner.settings import setting
from innerloop_learner.spec import LearnerSpec
from innerloop_learner.state import STATISTICS, WAYS, prefixed, section
from innerloop_learner.tasks import Adapted, Params, Query, Support, TaskState

MEMORY, HIDDEN, CELL = "memory", "hidden", "cell"


@dataclass(frozen=True)
class MANNSettings:
    """Sizes of controller and memory."""

    hidden: int = setting(200, "units of the controller", least=1)
    slots: int = setting(128, "slots of the memory", least=1)
    width: int = setting(40, "numbers in each slot", least=1)
    heads: int = setting(4, "heads that read and write", least=1)
    decay: float = setting(0.95, "share of a slot's usage kept from one example to the next", least=0, most=1)

    def __post_init__(self) -> None:
        if self.slots < self.heads:
            raise ValueError(f"slots must be at least heads ({self.heads}), not {self.slots}")


@methods.register("mann")
class MANN(Learner):
    """Writes examples into a memory and looks them up (Santoro et al. 2016, section 3).

    At each support example the controller, an LSTM, emits keys k_r and gates s_r, one for each of R heads. With read
    weights w^r, usage w^u and the memory M of N slots:

        w^w_r = s_r w^r_r(t-1) + (1 - s_r) w^lu_r(t-1),   M <- M with its least used slot cleared, + sum_r w^w_r k_r'
        w^r_r = softmax(b cos(k_r, M)),   w^u = g w^u(t-1) + sum_r (w^r_r + w^w_r),   w^lu_r = the r-th least used slot

    and for a query  logits = W [h, M' w^r_1, ..., M' w^r_R]. Labels come with their examples: the paper's shift by one
    step hides the label of an example that is asked about too, and here support and query are apart. The strength b,
    learned as its logarithm, is that of neural Turing machines; without it attention to many slots is nearly uniform.
    Each example takes slots of its own, so that classes can only have the same say if as many of each are read: where
    they are balanced, the first of each class, as many as the smallest class has. Others count in statistics only.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        name="mann",
        family="memory",
        paper="Santoro, Bartunov, Botvinick, Wierstra, Lillicrap: Meta-Learning with Memory-Augmented Neural Networks. "
        "ICML 2016",
        gradients_at_serving=False,
        order_matters=True,
        ways_can_change="fewer",
        tasks=("classification",),
    )
    settings_class = MANNSettings
    settings: MANNSettings
    embeds_alone = True

    def __init__(self, spec: LearnerSpec) -> None:
        super().__init__(spec)
        self._controller = LSTMCell("controller", self.backbone.features + spec.max_ways, self.settings.hidden)
        self._head = LinearHead.for_spec(spec, self.settings.hidden + self.settings.heads * self.settings.width)

    def init(self, generator: torch.Generator) -> Params:
        """See Learner.init."""
        params = {**self.backbone.init(generator), **self._controller.init(generator), **self._head.init(generator)}
        for name, outputs in (("keys", self.settings.heads * self.settings.width), ("gates", self.settings.heads)):
            params[f"memory.{name}.weight"] = glorot(generator, outputs, self.settings.hidden)
            params[f"memory.{name}.bias"] = torch.zeros(outputs)
        params["memory.strength"] = torch.tensor(2.0)
        params["memory.initial"] = 0.01 * torch.randn(self.settings.slots, self.settings.width, generator=generator)
        return params

    def adapt(self, params: Params, support: Support, steps: int | None = None) -> Adapted:
        """See Learner.adapt; state: memory [T, N, M] and the controller's state [T, H]."""
        del steps
        examples = self.example_weights(support)
        features = self.backbone.apply(params, support.x, examples)
        labels = F.one_hot(support.y, self.spec.max_ways).to(features.values.dtype)
        inputs = torch.cat([features.values, labels], -1)

        read = _read(support, examples)

        def take_in(index: Index, state: Params) -> tuple[Params, Params]:
            new = self._write(params, example(inputs, index), state)
            return blend(state, new, example(read, index)), {}

        state, _ = repeat(take_in, self._start(params, inputs), inputs.shape[1])
        kept = {name: state[name] for name in (MEMORY, HIDDEN, CELL)}
        statistics = prefixed(STATISTICS, features.statistics)
        return Adapted({**kept, WAYS: support.ways, **statistics}, None)

    def predict(self, params: Params, state: TaskState, query: Query) -> Tensor:
        """See Learner.predict; the memory is read and not written."""
        features = self.backbone.apply(params, query.x, query.mask, section(state, STATISTICS)).values
        x = F.pad(features, (0, self.spec.max_ways))
        before = LSTMState(*(state[name].unsqueeze(1).expand(-1, x.shape[1], -1) for name in (HIDDEN, CELL)))
        hidden = self._controller.step(params, x, before).hidden  # [T, Q, H]
        keys = self._keys(params, hidden).flatten(1, 2)  # [T, Q * R, M]
        read = self._attend(params, keys, state[MEMORY]) @ state[MEMORY]
        outputs = self._head.apply(params, torch.cat([hidden, read.view(*hidden.shape[:2], -1)], -1))
        return mask_unused_ways(outputs, state[WAYS], -torch.inf)

    def _start(self, params: Params, like: Tensor) -> Params:
        tasks = like.shape[0]
        lstm = self._controller.start(like[:, 0])
        # Slots are used up one after the other from the first; a ramp says which comes first among unused ones.
        usage = 1e-6 * torch.arange(self.settings.slots, dtype=like.dtype, device=like.device).expand(tasks, -1)
        return {
            MEMORY: params["memory.initial"].expand(tasks, -1, -1),
            HIDDEN: lstm.hidden,
            CELL: lstm.cell,
            "usage": usage,
            "read": like.new_zeros(tasks, self.settings.heads, self.settings.slots),
        }

    def _write(self, params: Params, x: Tensor, state: Params) -> Params:
        """Take in one example [T, I]."""
        lstm = self._controller.step(params, x, LSTMState(state[HIDDEN], state[CELL]))
        keys = self._keys(params, lstm.hidden)  # [T, R, M]
        gates = linear(lstm.hidden.unsqueeze(1), params["memory.gates.weight"], params["memory.gates.bias"])
        gates = gates.sigmoid().transpose(1, 2)  # [T, R, 1]
        places = state["usage"].topk(self.settings.heads, largest=False).indices  # [T, R], the least used first
        least_used = F.one_hot(places, self.settings.slots).to(x.dtype)  # [T, R, N]
        write = gates * state["read"] + (1 - gates) * least_used
        cleared = state[MEMORY] * (1 - least_used[:, 0]).unsqueeze(-1)
        memory = cleared + write.transpose(1, 2) @ keys
        read = self._attend(params, keys, memory)
        usage = self.settings.decay * state["usage"] + (read + write).sum(1)
        return {MEMORY: memory, HIDDEN: lstm.hidden, CELL: lstm.cell, "usage": usage, "read": read}

    def _keys(self, params: Params, hidden: Tensor) -> Tensor:
        """Keys [..., R, M] of the controller's state [..., H]."""
        keys = F.linear(hidden, params["memory.keys.weight"], params["memory.keys.bias"]).tanh()
        return keys.view(*hidden.shape[:-1], self.settings.heads, self.settings.width)

    def _attend(self, params: Params, keys: Tensor, memory: Tensor) -> Tensor:
        """Read weights [T, R, N] of keys [T, R, M] on a memory [T, N, M]."""
        # A cleared slot has no direction; the small number keeps its derivative finite.
        directions = memory / (memory.square().sum(-1, keepdim=True) + 1e-6).sqrt()
        cosines = F.normalize(keys, dim=-1) @ directions.transpose(1, 2)
        return (params["memory.strength"].exp() * cosines).softmax(-1)


def _read(support: Support, examples: Tensor) -> Tensor:
    """1 for the examples [T, S] that are read, 0 for others: of each class as many, by order, as its weights sum to."""
    members = support.members(examples.dtype)  # [T, S, W]
    place = (members.cumsum(1) * members).sum(-1)  # within its class, from 1; 0 for padding
    count = members @ (members * examples.unsqueeze(-1)).sum(1).round().unsqueeze(-1)  # [T, S, 1]
    return ((place > 0) & (place <= count.squeeze(-1))).to(examples.dtype)
