"""The one interface that trainer, evaluator, server and exporter know."""

from abc import ABC, abstractmethod
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from innerloop_learner.backbones.backbone import build_backbone
from innerloop_learner.backbones.given import Given
from innerloop_learner.leaving_out import answers_without, in_parts
from innerloop_learner.registry import Registry
from innerloop_learner.settings import NoSettings, SettingsError, StepSettings, refusing, with_settings
from innerloop_learner.spec import LearnerSpec
from innerloop_learner.support_policies import build_support_policy, support_policies
from innerloop_learner.tasks import Adapted, Params, Query, Support, TaskState, equal_weights
from innerloop_learner.traits import TaskKind, Traits, WaysCanChange
from innerloop_learner.weightings import weightings

Family = Literal[
    "initialisation", "optimizer", "choices", "metric", "memory", "weights", "life-long", "self-supervised", "baseline"
]


class TaskError(ValueError):
    """A learner can't take a task; the message says why."""


@dataclass(frozen=True)
class MethodInfo:
    """The properties by which a user chooses a method.

    Attributes:
        name: registered name.
        family: kind of method, by what is learned.
        paper: paper that describes it.
        gradients_at_serving: whether adapting computes gradients.
        order_matters: whether the order of the support set changes the answer.
        ways_can_change: which numbers of ways other than the trained one it can serve.
        tasks: the kinds of task it solves.
        objective: registered name of the outer loss that trains it; serving does not use it.
        extends: whether an adaptation can learn more examples without the old ones, unless the backbone or a weighting
            stands in the way (`Learner.extends`).
    """

    name: str
    family: Family
    paper: str
    gradients_at_serving: bool
    order_matters: bool
    ways_can_change: WaysCanChange
    tasks: tuple[TaskKind, ...]
    objective: str = "query_loss"
    extends: bool = False


class Learner(ABC):
    """Learns to learn: `state = adapt(support)`, then `outputs = predict(state, query)`.

    A learner holds settings only, every default filled in. Its functions are pure: parameters come in, nothing is kept.
    Whether gradients flow through `adapt` follows from torch's grad mode, so training and serving run the same code.

    Args:
        spec: description of the learner.

    Raises:
        SettingsError: the method does not take this kind of task, these inputs or these settings.

    Example:
        >>> from innerloop_learner.spec import InputSpec
        >>> spec = LearnerSpec("protonet", InputSpec((2,)), backbone="mlp", backbone_settings={"widths": [8]})
        >>> learner = build_learner(spec)
        >>> params = learner.init(torch.Generator().manual_seed(0))
        >>> x, real = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]), torch.ones(1, 2, dtype=torch.bool)
        >>> support = Support(x, torch.tensor([[0, 1]]), real, ways=torch.tensor([2]), max_ways=2)
        >>> state = learner.adapt(params, support).state
        >>> learner.predict(params, state, Query(x, real)).argmax(-1)
        tensor([[0, 1]])
    """

    info: ClassVar[MethodInfo]
    settings_class: ClassVar[type[Any]] = NoSettings
    """A frozen dataclass of the method's settings, each declared by `settings.setting`."""

    retired_settings: ClassVar[frozenset[str]] = frozenset()
    """Names of former settings of the method, which are ignored in older bundles."""

    weighs_examples: ClassVar[bool] = False
    """Whether its adaptation and its training have a place for a weighting of support examples."""

    takes_noise: ClassVar[bool] = False
    """Whether its inner loop takes noise on the layers of the backbone, and its training learns that noise."""

    augments_support: ClassVar[bool] = False
    """Whether its adaptation takes augmented copies of support examples, and its training learns how to make them."""

    embeds_alone: ClassVar[bool] = False
    """Whether it reads inputs by their features alone, which it computes by the backbone as it was meta-learned."""

    settings: object
    """The settings, an instance of `settings_class` with all defaults filled in."""

    def __init__(self, spec: LearnerSpec) -> None:
        if spec.task_kind not in self.info.tasks:
            raise SettingsError(
                f"{self.info.name} does not solve {spec.task_kind} tasks, only {', '.join(self.info.tasks)}"
            )
        self.check_weighting(spec.weighting)
        if spec.weighting != "none" and spec.task_kind == "regression":
            raise SettingsError(f"weighting {spec.weighting} compares examples of a class; regression has no classes")
        self.weighting = weightings[spec.weighting]()
        self.check_support_policy(spec.support_policy)
        if spec.weighting != "none" and spec.support_policy != "none":
            raise SettingsError(
                f"weighting {spec.weighting} compares examples with others of their class, and copies of an example "
                "speak for its own label; leave the weighting or the support policy out"
            )
        self.support_policy = build_support_policy(spec.support_policy, spec.input.shape, spec.policy_settings)
        given = {name: value for name, value in spec.settings.items() if name not in self.retired_settings}
        self.settings = with_settings(self.info.name, self.settings_class, given)
        with refusing(self.info.name):
            self._configure()
        self.backbone = build_backbone(spec.backbone, spec.input.shape, spec.backbone_settings)
        if self.backbone.noise.random and not self.takes_noise:
            raise SettingsError(
                f"{self.info.name} takes no noise in its backbone, since its training could not learn it; leave noise "
                "at none, or choose maml, anil, boil or meta-sgd"
            )
        self.spec = replace(
            spec,
            settings=dict(vars(self.settings)),
            backbone_settings=dict(vars(self.backbone.settings)),
            policy_settings=dict(vars(self.support_policy.settings)),
        )

    @classmethod
    def check_weighting(cls, name: str) -> None:
        """Check that the method can weigh its support examples, if it is to.

        Args:
            name: registered name of the weighting.

        Raises:
            UnknownNameError: there is no weighting of this name.
            SettingsError: the method has no place for learned weights.
        """
        weightings[name]
        if name != "none" and not cls.weighs_examples:
            raise SettingsError(
                f"{cls.info.name} can't learn weights of its support examples; leave the weighting out, or take a "
                "method that can, such as protonet, r2d2, lr-d2, anil or maml"
            )

    @classmethod
    def check_support_policy(cls, name: str) -> None:
        """Check that the method can take augmented copies of its support examples, if it is to.

        Args:
            name: registered name of the support policy.

        Raises:
            UnknownNameError: there is no support policy of this name.
            SettingsError: the method has no place for copies.
        """
        support_policies[name]
        if name != "none" and not cls.augments_support:
            raise SettingsError(
                f"{cls.info.name} takes no augmented copies of its support examples; leave the support policy out, or "
                "take a method that does, such as protonet, r2d2, lr-d2, anil or maml"
            )

    def _configure(self) -> None:  # noqa: B027 - most methods have nothing to make
        """Make the parts that `settings` describe, such as an update rule. The backbone is made later.

        Raises:
            ValueError: settings contradict each other.
        """

    @abstractmethod
    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters, drawn from `generator` (on the CPU, so that every device starts alike)."""

    def buffers(self) -> frozenset[str]:
        """Names of parameters that no gradient updates."""
        return self.backbone.buffers()

    def choices(self) -> frozenset[str]:
        """Names of parameters that are logits of discrete choices, [C] of C options each.

        The learner takes the option with the largest one, so no gradient reaches them. In training they may be [T, C],
        and each of T tasks has a choice of its own.
        """
        return frozenset()

    def settled(self, params: Params) -> "Learner":
        """The learner that serves with these parameters: one without choices, which gives the same answers."""
        del params
        return self

    @property
    def traits(self) -> Traits:
        """The properties of the learner that matter to servers and callers."""
        return Traits(
            task_kind=self.spec.task_kind,
            ways_can_change=self.info.ways_can_change,
            order_matters=self.info.order_matters,
            gradients_at_serving=self.info.gradients_at_serving,
            default_steps=self.default_steps,
            max_steps=self.max_steps,
            head_ways=self.spec.max_ways,
            max_ways=self.spec.max_ways,
            target_size=self.spec.target_size,
            extends=self.extends,
        )

    def padded_ways(self, ways: int) -> int:
        """The `Support.max_ways` of tasks with up to `ways` classes: the width of a fixed head, otherwise `ways`.

        Raises:
            TaskError: the learner can't take that many classes, or that few.
        """
        traits = self.traits
        width, exactly = traits.head_ways, traits.ways_can_change == "no"
        if traits.task_kind == "regression" or not traits.fixed_head:
            return ways
        if ways > width or (ways < width and exactly):
            takes = f"exactly {width}" if exactly else f"at most {width}"
            raise TaskError(f"this {self.info.name} model takes {takes} ways, not {ways}")
        return width

    @property
    def default_steps(self) -> int:
        """Inner steps taken when a request names none; zero for methods without steps."""
        return self.settings.steps if isinstance(self.settings, StepSettings) else 0

    @property
    def max_steps(self) -> int:
        """Most inner steps a request may ask for; zero for methods without steps."""
        return self.settings.max_steps if isinstance(self.settings, StepSettings) else 0

    @abstractmethod
    def adapt(self, params: Params, support: Support, steps: int | None = None) -> Adapted:
        """Learn T tasks from their support sets.

        Args:
            params: meta-learned parameters.
            support: the labelled examples.
            steps: inner steps, `default_steps` when None; methods without steps ignore it.

        Returns:
            the task state, every tensor [T, ...], the support loss before each step [T, steps], and what each example
            counted [T, S].
        """

    @property
    def extends(self) -> bool:
        """Whether `extend` learns more examples into a task state; if not, the method must adapt anew on all of them.

        Norms whose statistics come from the support set, and weightings, judge old examples by new ones, and a support
        policy draws the copies of each example by all of them, so with these no method extends.
        """
        return self._why_not_extended() == ""

    def extend(self, params: Params, state: TaskState, support: Support, steps: int | None = None) -> Adapted:
        """Learn more labelled examples into T task states, without the examples that these were made of.

        The result answers like that of adapting to all examples, the old ones first, up to rounding.

        Args:
            params: meta-learned parameters.
            state: what `adapt` or `extend` returned with the same parameters. Where the method takes any number of
                ways, its classes may be fewer than `support.max_ways`, and it is widened.
            support: the new examples. Class indices are those of the widened task: old classes keep theirs, and new
                ones follow. `ways` is the number of classes afterwards. A task whose examples are all padding keeps its
                state.
            steps: inner steps, `default_steps` when None; methods without steps ignore it.

        Returns:
            as `adapt` does, for the new examples.

        Raises:
            TaskError: the learner can't extend, or the state comes from one that could not.
        """
        refused = self._why_not_extended()
        if refused:
            raise TaskError(f"{refused}; adapt anew on all examples, old and new")
        return self._extend(params, state, support, steps)

    def _extend(self, params: Params, state: TaskState, support: Support, steps: int | None) -> Adapted:
        """See `extend`; called only if the learner extends."""
        raise NotImplementedError

    def _why_not_extended(self) -> str:
        """The reason why the learner can't extend; empty if it can."""
        name = self.info.name
        if not self.info.extends:
            return f"{name} can't learn more examples into an adaptation"
        if self.spec.weighting != "none":
            return f"with weighting {self.spec.weighting}, what an example counts depends on all others"
        if self.spec.support_policy != "none":
            return f"with support policy {self.spec.support_policy}, the copies of an example depend on all others"
        if self.backbone.support_statistics:
            return (
                "the backbone's norm takes its statistics from all examples together (of the registered norms, batch, "
                f"group, layer and none do not), so {name} can't learn more examples into an adaptation"
            )
        return ""

    @property
    def leaves_out(self) -> bool:
        """Whether `left_out` answers examples by tasks without them; if not, the method must adapt to each such task.

        The features of an example must depend on this example alone. They depend on others where norms take statistics
        of the support set, and where a support policy draws copies by all examples; and they change where noise is
        random.
        """
        return (
            self.embeds_alone
            and not self.backbone.support_statistics
            and not self.backbone.noise.random
            and self.spec.support_policy == "none"
        )

    @property
    def on_features(self) -> Self:
        """The learner that takes features in the place of inputs and answers alike; only if `leaves_out` is true."""
        twin = copy(self)
        twin.backbone = Given(self.backbone)
        return twin

    def left_out(self, params: Params, support: Support, parts: Tensor, steps: int | None = None) -> Tensor:
        """What T tasks answer to their own support examples, each left out, without adapting anew to all inputs.

        The answers are those of adapting to all other parts and asking about this one, up to rounding, and features are
        computed once.

        Args:
            params: meta-learned parameters.
            support: the labelled examples, at least one of each class outside of each part.
            parts: places of examples that are left out together, [T, P, L] int64; -1 for none.
            steps: inner steps, `default_steps` when None; methods without steps ignore it.

        Returns:
            logits [T, S, W], -inf past a task's ways, or values [T, S, D]; NaN for examples that no part has.

        Raises:
            TaskError: the learner can't do so.
        """
        if not self.leaves_out:
            raise TaskError(f"this {self.info.name} model must adapt anew to what is left; nothing is computed once")
        values = self.backbone.apply(params, support.x, self.example_weights(support)).values
        answers = self.on_features._left_out(params, replace(support, x=values), parts, steps)
        return answers.masked_fill(~in_parts(parts, support.mask.shape[1]).any(1).unsqueeze(-1), torch.nan)

    def _left_out(self, params: Params, features: Support, parts: Tensor, steps: int | None) -> Tensor:
        """See `left_out`; called on a learner that takes features, and may answer anything to examples of no part.

        Methods override it that need not adapt for each part.
        """

        def answer(rest: Support, query: Query) -> Tensor:
            return self.predict(params, self.adapt(params, rest, steps).state, query)

        return answers_without(answer, features, parts)

    @abstractmethod
    def predict(self, params: Params, state: TaskState, query: Query) -> Tensor:
        """Answer queries: logits [T, Q, W], -inf past a task's ways, or values [T, Q, D].

        An answer depends on the task state and its own query only.
        """

    def example_weights(self, support: Support) -> Tensor:
        """The weight of each support example in losses, sums, linear systems and statistics, [T, S]; 0 for padding.

        A weighting or a support policy changes them in losses, sums and linear systems alone (`loss_weights`), since
        statistics are of inputs, whatever their labels. If `spec.class_balance` is "equal", these are
        `Support.class_weights`. If it is "proportional", and in regression, each example has weight 1.
        """
        if self.spec.task_kind == "classification" and self.spec.class_balance == "equal":
            return support.class_weights
        return support.mask.to(support.x.dtype)

    def votes(self, members: Tensor) -> Tensor:
        """The weight of each example for its class [T, S, W], as in `example_weights`; from `Support.members`."""
        return members * equal_weights(members.sum(1)).unsqueeze(1) if self.spec.class_balance == "equal" else members

    def loss_weights(self, support: Support, learned: Tensor | None) -> Tensor:
        """The weight of each support example in losses, sums and linear systems, [T, S]; 0 for padding.

        It is that of `example_weights` times `learned` [T, S], which a weighting or a support policy gave. None means
        that all examples of a class count the same. An example and its copies weigh as much as the example alone.
        """
        examples = self.example_weights(support) / (1 + self.support_policy.copies)
        return examples if learned is None else examples * learned


methods: Registry[type[Learner]] = Registry("method", "innerloop.methods", "innerloop_learner.methods")


def build_learner(spec: LearnerSpec) -> Learner:
    """Build the learner that a spec describes.

    Raises:
        UnknownNameError: there is no method or backbone of this name.
        SettingsError: the method or backbone does not take this kind of task, these inputs or these settings.
    """
    return methods[spec.method](spec)
