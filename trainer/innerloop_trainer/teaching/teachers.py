"""Teachers: models that are trained already, whose answers another one learns from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from innerloop_learner.bundle import Bundle
from innerloop_learner.learner import Learner, TaskError
from innerloop_learner.losses import UNUSED_LOGIT
from innerloop_learner.methods.partial_maml import block_of
from innerloop_learner.state import prefixed, section
from innerloop_learner.tasks import Episodes, Params
from innerloop_trainer.data import DataSource
from innerloop_trainer.evaluation import EvaluationError, check_source


class TeacherError(ValueError):
    """A model can't teach in this run; the message says why and what to do."""


@dataclass(frozen=True)
class Teachers:
    """Models of any methods, which learn each task as the student does and whose probabilities are averaged.

    With the logits z_i of N teachers for a query, after each has adapted to the support set of its task, and a
    temperature t:

        p = 1/N sum_i softmax(z_i / t)

    Teachers answer as they are served: their norms use the averages that their bundles hold.

    Attributes:
        bundles: the teachers, all on one device.
    """

    bundles: Sequence[Bundle]

    @property
    def record(self) -> str | None:
        """The text by which a run's configuration identifies them; None if there are none."""
        return ",".join(f"sha256:{bundle.manifest.digest}" for bundle in self.bundles) or None

    def check(self, source: DataSource, ways: int) -> None:
        """Check that they can teach on tasks of a source.

        Args:
            source: data of the run.
            ways: classes per training episode.

        Raises:
            TeacherError: one takes other inputs, tasks or ways, or stands behind another encoder.
        """
        for bundle in self.bundles:
            name = bundle.manifest.name
            if bundle.learner.spec.task_kind != "classification":
                raise TeacherError(f"teacher {name}: it solves regression tasks; teachers answer with classes")
            if not _same_encoder(bundle, source):
                raise TeacherError(
                    f"teacher {name}: its encoder is not that of this run; choose another teacher, or its --encoder"
                )
            try:
                check_source(bundle.learner, source)
                bundle.learner.padded_ways(ways)
            except (EvaluationError, TaskError) as error:
                raise TeacherError(f"teacher {name}: {error}; choose another teacher, or other tasks") from error

    def heads(self) -> Params:
        """The parameters of the heads by name, `PLACE.NAME` for the teacher of each place."""
        heads: Params = {}
        for place, bundle in enumerate(self.bundles):
            own = {name: bundle.params[name] for name in head_of(bundle.learner)}
            heads |= prefixed(f"{place}.", own)
        return heads

    def log_probabilities(self, heads: Params, episodes: Episodes, temperature: Tensor) -> Tensor:
        """The logarithms of p for the queries of episodes, [T, Q, W].

        Args:
            heads: parameters to use in the place of those of the bundles, named as by `heads`; gradients reach these.
            episodes: tasks, whose targets play no part.
            temperature: t, a scalar.
        """
        answers = []
        for place, bundle in enumerate(self.bundles):
            own = section(heads, f"{place}.")
            # Without a head to learn, no graph of a teacher is of any use.
            with torch.set_grad_enabled(torch.is_grad_enabled() and bool(own)):
                logits = _logits(bundle.learner, {**bundle.params, **own}, episodes)
            answers.append((logits.clamp(min=UNUSED_LOGIT) / temperature).log_softmax(-1))
        return torch.stack(answers).logsumexp(0) - math.log(len(answers))


NO_TEACHERS = Teachers(())


def _same_encoder(bundle: Bundle, source: DataSource) -> bool:
    """Whether a bundle takes the features that a source gives, or both do without an encoder."""
    ours, theirs = source.encoder, bundle.manifest.encoder
    if ours is None or theirs is None:
        return ours is None and theirs is None
    alike = replace(ours.spec, origin=None) == replace(theirs, origin=None)
    return alike and all(bundle.files.get(name) == content for name, content in ours.files.items())


def _logits(learner: Learner, params: Params, episodes: Episodes) -> Tensor:
    """Logits [T, Q, W] of a learner for the W classes of the student's outputs."""
    width = episodes.support.max_ways
    support = replace(episodes.support, max_ways=learner.padded_ways(width))
    return learner.predict(params, learner.adapt(params, support).state, episodes.query)[..., :width]


def head_of(learner: Learner) -> list[str]:
    """Names of the parameters of a learner's head: those outside of its backbone, or its backbone's last block.

    Metric methods have nothing outside: there the last block makes what is compared. Buffers and logits of choices,
    which no gradient reaches, are left out.

    >>> from innerloop_learner import InputSpec, LearnerSpec, build_learner
    >>> spec = LearnerSpec("maml", InputSpec((4,)), max_ways=3, backbone="mlp", backbone_settings={"norm": "layer"})
    >>> head_of(build_learner(spec))
    ['head.weight', 'head.bias']
    >>> head_of(build_learner(replace(spec, method="protonet")))
    ['linear1.weight', 'linear1.bias', 'norm1.weight', 'norm1.bias']
    """
    generator = torch.Generator()
    fixed = learner.buffers() | learner.choices()
    body = [name for name in learner.backbone.init(generator) if name not in fixed]
    outside = [name for name in learner.init(generator) if name not in fixed and name not in body]
    return outside or [name for name in body if block_of(name) == block_of(body[-1])]
