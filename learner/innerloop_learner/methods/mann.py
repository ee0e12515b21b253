"""Memory-augmented neural network."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.heads import LinearHead, mask_unused_ways
from innerloop_learner.layers import glorot, linear
from innerloop_learner.learner import Learner, MethodInfo, TrainingDefaults, methods
from innerloop_learner.loops import Index, example, repeat
from innerloop_learner.recurrent import LSTMCell, LSTMState
from innerloop_learner.spec import LearnerSpec
from innerloop_learner.state import STATISTICS, WAYS, prefixed, section
from innerloop_learner.tasks import Adapted, Params, Query, Support, TaskState

MEMORY, HIDDEN, CELL = "memory", "hidden", "cell"


@methods.register("mann")
class MANN(Learner):
    """A controller that writes examples into a memory and looks them up (Santoro et al. 2016, section 3).

    At each support example the controller, an LSTM, emits keys k_r and gates s_r, one for each of R heads. With read
    weights w^r, usage w^u and the memory M of N slots:

        w^w_r = s_r w^r_r(t-1) + (1 - s_r) w^lu_r(t-1),   M <- M with its least used slot cleared, + sum_r w^w_r k_r'
        w^r_r = softmax(b cos(k_r, M)),   w^u = g w^u(t-1) + sum_r (w^r_r + w^w_r),   w^lu_r = the r-th least used slot

    and for a query  logits = W [h, M' w^r_1, ..., M' w^r_R]. Labels come with their examples: the paper's shift by one
    step hides the label of an example that is asked about too, and here support and query are apart. The strength b,
    learned as its logarithm, is that of neural Turing machines; without it attention to many slots is nearly uniform.

    Settings (`spec.settings`):
        hidden: units of the controller.
        slots, width: of the memory.
        heads: R.
        decay: g.
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
        training=TrainingDefaults(queries=3, norm="batch"),
    )

    def __init__(self, spec: LearnerSpec) -> None:
        super().__init__(spec)
        self._controller = LSTMCell("controller", self.backbone.features + spec.max_ways, self._hidden)
        self._head = LinearHead.for_spec(spec, self._hidden + self._heads * self._width)

    def _configure(
        self, hidden: int = 200, slots: int = 128, width: int = 40, heads: int = 4, decay: float = 0.95
    ) -> None:
        if min(hidden, width, heads) < 1 or slots < heads:
            raise ValueError("hidden, width and heads must be at least 1, and slots at least heads")
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must lie between 0 and 1, not {decay}")
        self._hidden, self._slots, self._width, self._heads, self._decay = hidden, slots, width, heads, decay

    def init(self, generator: torch.Generator) -> Params:
        """See Learner.init."""
        params = {**self.backbone.init(generator), **self._controller.init(generator), **self._head.init(generator)}
        for name, outputs in (("keys", self._heads * self._width), ("gates", self._heads)):
            params[f"memory.{name}.weight"] = glorot(generator, outputs, self._hidden)
            params[f"memory.{name}.bias"] = torch.zeros(outputs)
        params["memory.strength"] = torch.tensor(2.0)
        params["memory.initial"] = 0.01 * torch.randn(self._slots, self._width, generator=generator)
        return params

    def adapt(self, params: Params, support: Support, steps: int | None = None) -> Adapted:
        """See Learner.adapt; state: memory [T, N, M] and the controller's state [T, H]."""
        del steps
        features = self.backbone.apply(params, support.x, support.mask)
        labels = F.one_hot(support.y, self.spec.max_ways).to(features.values.dtype)
        inputs = torch.cat([features.values, labels], -1)

        def take_in(index: Index, state: Params) -> tuple[Params, Params]:
            real, new = example(support.mask, index), self._write(params, example(inputs, index), state)
            after = {
                name: torch.where(real.view(-1, *[1] * (value.dim() - 1)), new[name], value)
                for name, value in state.items()
            }
            return after, {}

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
        usage = 1e-6 * torch.arange(self._slots, dtype=like.dtype, device=like.device).expand(tasks, -1)
        return {
            MEMORY: params["memory.initial"].expand(tasks, -1, -1),
            HIDDEN: lstm.hidden,
            CELL: lstm.cell,
            "usage": usage,
            "read": like.new_zeros(tasks, self._heads, self._slots),
        }

    def _write(self, params: Params, x: Tensor, state: Params) -> Params:
        """Take in one example [T, I]."""
        lstm = self._controller.step(params, x, LSTMState(state[HIDDEN], state[CELL]))
        keys = self._keys(params, lstm.hidden)  # [T, R, M]
        gates = linear(lstm.hidden.unsqueeze(1), params["memory.gates.weight"], params["memory.gates.bias"])
        gates = gates.sigmoid().transpose(1, 2)  # [T, R, 1]
        places = state["usage"].topk(self._heads, largest=False).indices  # [T, R], the least used first
        least_used = F.one_hot(places, self._slots).to(x.dtype)  # [T, R, N]
        write = gates * state["read"] + (1 - gates) * least_used
        cleared = state[MEMORY] * (1 - least_used[:, 0]).unsqueeze(-1)
        memory = cleared + write.transpose(1, 2) @ keys
        read = self._attend(params, keys, memory)
        usage = self._decay * state["usage"] + (read + write).sum(1)
        return {MEMORY: memory, HIDDEN: lstm.hidden, CELL: lstm.cell, "usage": usage, "read": read}

    def _keys(self, params: Params, hidden: Tensor) -> Tensor:
        """Keys [..., R, M] of the controller's state [..., H]."""
        keys = F.linear(hidden, params["memory.keys.weight"], params["memory.keys.bias"]).tanh()
        return keys.view(*hidden.shape[:-1], self._heads, self._width)

    def _attend(self, params: Params, keys: Tensor, memory: Tensor) -> Tensor:
        """Read weights [T, R, N] of keys [T, R, M] on a memory [T, N, M]."""
        # A cleared slot has no direction; the small number keeps its derivative finite.
        directions = memory / (memory.square().sum(-1, keepdim=True) + 1e-6).sqrt()
        cosines = F.normalize(keys, dim=-1) @ directions.transpose(1, 2)
        return (params["memory.strength"].exp() * cosines).softmax(-1)
