"""The base class of all methods that adapt by an inner loop of gradient steps."""

import copy
from typing import Literal

import torch
from torch import Tensor

from innerloop_learner import heads
from innerloop_learner.backbones.backbone import Features
from innerloop_learner.draws import example_keys, keys_of_sample
from innerloop_learner.familiarity import CENTRES, class_centres, with_familiarity
from innerloop_learner.heads import LinearHead, mask_unused_ways
from innerloop_learner.inner_loop import Loss, inner_loop
from innerloop_learner.learner import Learner
from innerloop_learner.loops import Index
from innerloop_learner.losses import UNUSED_LOGIT, task_loss
from innerloop_learner.noises import NOISE
from innerloop_learner.spec import LearnerSpec
from innerloop_learner.state import STATISTICS, WAYS, WEIGHTS, prefixed, section
from innerloop_learner.tasks import Adapted, Params, Query, Support, TaskState
from innerloop_learner.update_rules import UpdateRule


class GradientLearner(Learner):
    """A backbone and a linear head whose weights take a few gradient steps on each task.

    The settings of a subclass derive from `StepSettings`. Its `_configure` sets the update rule (`rule`).

    Attributes:
        order: order of derivatives that the outer gradient takes through inner steps: 1 or 2.
        adapts_body, adapts_head: whether the inner loop changes the weights of the backbone, and those of the head.
        rule: the update rule, which turns gradients into new weights.
        recompute: whether outer gradients compute each inner step again, rather than keep its activations; a matter of
            training alone (`recomputing`).
    """

    order: Literal[1, 2] = 2
    adapts_body: bool = True
    adapts_head: bool = True
    rule: UpdateRule
    recompute: bool = False

    def __init__(self, spec: LearnerSpec) -> None:
        super().__init__(spec)
        self.head = LinearHead.for_spec(spec, self.backbone.features)
        body = self.backbone.init(torch.Generator()).keys() - self.backbone.buffers() - self.backbone.architecture()
        self._body = {name for name in body if not name.startswith(NOISE)}

    def init(self, generator: torch.Generator) -> Params:
        """See Learner.init."""
        weights = {**self.backbone.init(generator), **self.head.init(generator)}
        rule = self.rule.init(generator, self.adapted(weights))
        return {**weights, **rule, **self.weighting.init(generator), **self.support_policy.init()}

    def adapt(self, params: Params, support: Support, steps: int | None = None) -> Adapted:
        """See Learner.adapt."""
        steps = self.default_steps if steps is None else steps
        support, counts = self.support_policy.enlarge(params, support)
        frozen = self.frozen_features(params, support)
        learned = self.weighting.weigh(params, support, lambda: self._initial_features(params, support, frozen))
        counted = counts if learned is None else learned
        loss = self.support_loss(params, support, frozen, learned=counted)
        initial = self.adapted(params)
        weights, losses = inner_loop(loss, initial, self.rule, params, steps, support.tasks, self.order, self.recompute)
        return Adapted(self.state_after(params, weights, support, frozen, steps, counted), losses, learned)

    def predict(self, params: Params, state: TaskState, query: Query) -> Tensor:
        """See Learner.predict."""
        merged = self._of_state(params, state)
        features = self.backbone.apply(merged, query.x, query.mask, section(state, STATISTICS)).values
        outputs = self.outputs(merged, features, state[WAYS], -torch.inf)
        if CENTRES not in state:
            return outputs
        return with_familiarity(outputs, features, state[CENTRES], state[WAYS])

    def frozen_features(self, params: Params, support: Support) -> Features | None:
        """Features of the support set if no step changes them, so that they are not computed in every step."""
        if self.adapts_body or self.backbone.noise.random:
            return None
        return self.backbone.apply(params, support.x, self.example_weights(support))

    def _initial_features(self, params: Params, support: Support, frozen: Features | None) -> Tensor:
        """Features of the support set [T, S, F] at the initialisation."""
        features = frozen or self.backbone.apply(self.at_step(params, 0), support.x, self.example_weights(support))
        return features.values

    def support_loss(
        self,
        params: Params,
        support: Support,
        frozen: Features | None,
        examples: Tensor | None = None,
        learned: Tensor | None = None,
    ) -> Loss:
        """The function that the inner loop minimises: it gives the support loss of each task [T] for weights [T, ...].

        With noise in the backbone the loss is the average over samples of it, others in each step.

        Args:
            params: meta-learned parameters.
            support: the labelled examples.
            frozen: features of the support set, if the body does not adapt.
            examples: weights of the examples in statistics and in the loss [T, S]; None for `example_weights`.
            learned: what the weighting or the support policy gave [T, S], which counts in the loss alone; None if all
                count the same.
        """
        examples = self.example_weights(support) if examples is None else examples
        counts = examples if learned is None else examples * learned
        noise = self.backbone.noise
        keys = example_keys(support.x, support.mask) if noise.random else None

        def loss(step: Index, weights: Params, twice: bool) -> Tensor:
            merged = {**self.at_step(params, step), **weights}
            backbone = self.backbone if twice else self.backbone.once

            def with_noise(noise_keys: Tensor | None) -> Tensor:
                features = frozen or backbone.apply(merged, support.x, examples, None, noise_keys)
                outputs = self.outputs(merged, features.values, support.ways, UNUSED_LOGIT)
                return task_loss(self.spec.task_kind, outputs, support.y, counts)

            if keys is None:
                return with_noise(None)
            samples = range(1 if twice else noise.samples)
            return torch.stack([with_noise(keys_of_sample(keys, step, sample)) for sample in samples]).mean(0)

        return loss

    def at_step(self, params: Params, steps: Index) -> Params:
        """The parameters to use with weights that have taken `steps` steps; some methods have parameters per step."""
        del steps
        return params

    def _of_state(self, params: Params, state: TaskState) -> Params:
        """The meta-learned parameters, with the weights that a task state holds in the place of the initial ones."""
        return {**params, **section(state, WEIGHTS)}

    def state_after(
        self,
        params: Params,
        weights: Params,
        support: Support,
        frozen: Features | None,
        steps: Index,
        learned: Tensor | None = None,
    ) -> TaskState:
        """The task state of weights that have taken `steps` steps; `learned` as in `support_loss`."""
        state = {WEIGHTS + name: weight for name, weight in weights.items()}
        if self.backbone.support_statistics or self.keeps_centres:
            merged = {**self.at_step(params, steps), **weights}
            features = frozen or self.backbone.apply(merged, support.x, self.example_weights(support))
            state |= prefixed(STATISTICS, features.statistics if self.backbone.support_statistics else {})
            if self.keeps_centres:
                state[CENTRES] = class_centres(features.values.detach(), support, learned)
        return {**state, WAYS: support.ways}

    @property
    def keeps_centres(self) -> bool:
        """Whether task states keep where classes lie in feature space, so that logits tell what lies elsewhere.

        Where the body adapts, that would take the features of the support set once more.
        """
        return self.spec.task_kind == "classification" and not self.adapts_body

    def adapted(self, params: Params) -> Params:
        """The weights that the inner loop changes."""
        head = {heads.WEIGHT, heads.BIAS} if self.adapts_head else set()
        names = (self._body if self.adapts_body else set()) | head
        return {name: value for name, value in params.items() if name in names}

    def outputs(self, params: Params, features: Tensor, ways: Tensor, unused: float) -> Tensor:
        """Logits [T, N, W] of features [T, N, F], `unused` in columns past a task's ways [T]; or values [T, N, D]."""
        outputs = self.head.apply(params, features)
        return mask_unused_ways(outputs, ways, unused) if self.spec.task_kind == "classification" else outputs


def recomputing(learner: GradientLearner) -> GradientLearner:
    """The learner whose outer gradients compute each inner step again, instead of keeping the activations of all.

    Args:
        learner: the learner, which is not changed.
    """
    twin = copy.copy(learner)
    twin.recompute = True
    return twin
