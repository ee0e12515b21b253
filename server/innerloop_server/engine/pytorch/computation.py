"""The computation of a bundle, from batches of tensors to batches of tensors; it keeps no states."""

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Literal

import torch
from torch import Tensor

from innerloop_learner.acceleration import accelerated
from innerloop_learner.inputs import normalise
from innerloop_learner.layers import TaskConvolution
from innerloop_learner.learner import Learner
from innerloop_learner.tasks import Adapted, Params, Query, Support
from innerloop_server.engine.pytorch.state_layout import StateLayout, StateLayouts
from innerloop_server.engine.pytorch.thread_choice import ThreadChoice
from innerloop_server.engine.query_chunks import query_chunks

Precision = Literal["float32", "tf32", "bfloat16"]

MOST_CHOICES = 256
"""Most shapes of one model for which choices are remembered; a bound is needed since clients choose the shapes."""

_numbers = count()


class Computation:
    """A learner with its parameters.

    Args:
        learner: what computes; its twin that suits the device and the precision takes its place.
        params: meta-learned, on the device.
        precision: of convolutions and matrix products; bfloat16 computes them in that type and keeps float32 weights.

    Attributes:
        learner: that twin.
        number: no two of a process have the same.
        layouts: of the task states that it has made.
        compiled: learners that are faster at programs of some keys.
        task_convolution: how tasks share a convolution, a name of `TASK_CONVOLUTIONS`; None for the device's default.
    """

    def __init__(self, learner: Learner, params: Params, precision: Precision) -> None:
        self.number = next(_numbers)
        self.params = params
        self.precision = precision
        self.learner = learner
        self.convolve_tasks_by(None)
        self.layouts = StateLayouts()
        self.compiled: dict[Hashable, Learner] = {}
        self._thread_choices: OrderedDict[Hashable, ThreadChoice] = OrderedDict()

    def convolve_tasks_by(self, form: TaskConvolution | None) -> None:
        """Let tasks with weights of their own share convolutions in this form; None for what suits most devices."""
        device = next((value.device for value in self.params.values()), torch.device("cpu"))
        low = self.precision == "bfloat16"
        self.learner = accelerated(self.learner, device, low_precision=low, task_convolution=form)
        self.task_convolution = form

    def thread_choice(self, key: Hashable, choices: Sequence[int]) -> ThreadChoice:
        """Chooses CPU threads for programs of a key that run alone."""
        choice = self._thread_choices.setdefault(key, ThreadChoice(choices))
        self._thread_choices.move_to_end(key)
        if len(self._thread_choices) > MOST_CHOICES:
            self._thread_choices.popitem(last=False)
        return choice

    def adapt(
        self, learner: Learner, steps: int, width: int, x: Tensor, y: Tensor, present: Tensor, ways: Tensor
    ) -> tuple[StateLayout, tuple[Tensor, ...]]:
        """Learn tasks.

        Args:
            learner: `self.learner`, or one that answers alike.
            steps: inner steps.
            width: classes to make room for.
            x: raw inputs [T, S, *input].
            y: class indices [T, S], or targets [T, S, D].
            present: which examples are real [T, S].
            ways: classes of each task [T].

        Returns:
            the layout of the states; states [T, words], losses [T, steps], and weights of examples [T, S]. For methods
            without steps losses are [T, 0], and where all examples of a class count the same, weights are.
        """
        with self._computing(x.device):
            support = Support(normalise(learner.spec.input, x), y, present, ways, width)
            return self._packed(learner.adapt(self.params, support, steps), ways)

    def extend(
        self,
        learner: Learner,
        steps: int,
        width: int,
        before: StateLayout,
        rows: Tensor,
        x: Tensor,
        y: Tensor,
        present: Tensor,
        ways: Tensor,
    ) -> tuple[StateLayout, tuple[Tensor, ...]]:
        """Learn more examples into states.

        Args:
            learner: `self.learner`, or one that answers alike.
            steps: inner steps.
            width: classes to make room for.
            before: layout of the states.
            rows: states [T, words].
            x: raw inputs [T, S, *input] of the new examples.
            y: class indices [T, S], or targets [T, S, D].
            present: which examples are real [T, S].
            ways: classes of each task afterwards [T].

        Returns:
            what `adapt` returns.

        Raises:
            TaskError: the states were made by a learner whose states could not learn more.
        """
        with self._computing(x.device):
            support = Support(normalise(learner.spec.input, x), y, present, ways, width)
            return self._packed(learner.extend(self.params, before.unpack(rows), support, steps), ways)

    def _packed(self, adapted: Adapted, ways: Tensor) -> tuple[StateLayout, tuple[Tensor, ...]]:
        """See `adapt`."""
        layout = self.layouts.of(adapted.state)
        nothing = ways.new_zeros(len(ways), 0, dtype=torch.float32)
        losses, weights = (nothing if each is None else each.float() for each in (adapted.losses, adapted.weights))
        return layout, (layout.pack(adapted.state), losses, weights)

    def predict(
        self, learner: Learner, layout: StateLayout, rows: Tensor, x: Tensor, present: Tensor
    ) -> tuple[Tensor, ...]:
        """Answer queries: logits and probabilities [T, Q, W], or values [T, Q, D].

        Args:
            learner: `self.learner`, or one that answers alike.
            layout: of the states.
            rows: states [T, words].
            x: raw inputs [T, Q, *input].
            present: which of them are real [T, Q].
        """
        with self._computing(x.device):
            query = Query(normalise(learner.spec.input, x), present)
            outputs = self._in_chunks(learner, layout.unpack(rows), query).float()
            regression = learner.spec.task_kind == "regression"
            return (outputs,) if regression else (outputs, outputs.softmax(-1))

    def left_out(
        self,
        learner: Learner,
        steps: int,
        width: int,
        parts: Tensor,
        x: Tensor,
        y: Tensor,
        present: Tensor,
        ways: Tensor,
    ) -> tuple[Tensor, ...]:
        """Answer examples of support sets by tasks without them: logits and probabilities [T, S, W].

        Args:
            learner: `self.learner`, or one that answers alike.
            steps: inner steps.
            width: classes to make room for.
            parts: places of examples that are left out together [T, P, L]; -1 for none.
            x: raw inputs [T, S, *input].
            y: class indices [T, S].
            present: which examples are real [T, S].
            ways: classes of each task [T].
        """
        with self._computing(x.device):
            support = Support(normalise(learner.spec.input, x), y, present, ways, width)
            outputs = learner.left_out(self.params, support, parts, steps).float()
            return outputs, outputs.softmax(-1)

    def _in_chunks(self, learner: Learner, state: dict[str, Tensor], query: Query) -> Tensor:
        """Outputs for all queries, some at a time."""
        answered = [
            learner.predict(self.params, state, Query(query.x[:, chunk], query.mask[:, chunk]))
            for chunk in query_chunks(*query.mask.shape)
        ]
        return torch.cat(answered, dim=1) if len(answered) != 1 else answered[0]

    @contextmanager
    def _computing(self, device: torch.device) -> Iterator[None]:
        # Captured programs must not depend on what a cache holds.
        low = torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16", cache_enabled=False)
        with torch.no_grad(), low:
            yield
