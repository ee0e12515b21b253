"""What a report is about, and how much is measured for it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from innerloop_learner.bundle import Bundle
from innerloop_learner.manifest import Metric
from innerloop_trainer.bundle_evaluation import BundleFigure
from innerloop_trainer.data import ClassExamples, DataSource, EpisodeShape, TaskSampler, load_source
from innerloop_trainer.evaluation import evaluation_batches


@dataclass(frozen=True)
class Budget:
    """How much a report measures.

    Attributes:
        episodes: tasks of each point of a curve, and tasks among which the hardest are looked for; fewer where adapting
            is slow.
        tasks: hardest tasks that are shown.
        seconds: time after which no further point of a curve is begun; the page says what was left out.
    """

    episodes: int
    tasks: int
    seconds: float


FULL = Budget(episodes=200, tasks=4, seconds=120.0)
QUICK = Budget(episodes=25, tasks=2, seconds=5.0)


@dataclass(frozen=True)
class Subject:
    """A model, and the unseen tasks that it is reported on with.

    Attributes:
        bundle: the model.
        source: data as the model takes it.
        sampler: classes of that data that the model has not seen.
        originals: the same classes before an encoder read them; None where there are no classes to show.
        texts: whether the originals are texts.
        rate: sampling rate of the originals in Hz, if they are recordings; otherwise zero.
        shape: size of the tasks.
        steps: inner steps.
        seed: seed of the tasks.
        headline: the figure that was measured before.
        left_out: number of classes that were left out, because the model was trained or chosen by them.
    """

    bundle: Bundle
    source: DataSource
    sampler: TaskSampler
    originals: ClassExamples | None
    texts: bool
    rate: int
    shape: EpisodeShape
    steps: int
    seed: int
    headline: Metric
    left_out: int

    @property
    def regression(self) -> bool:
        """Whether tasks ask for values rather than classes."""
        return self.bundle.learner.spec.task_kind == "regression"

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""
        return next(iter(self.bundle.params.values())).device

    def batches(self, episodes: int) -> Iterator[tuple[int, torch.Generator]]:
        """Sizes and generators of the batches of tasks, as evaluations draw them."""
        return evaluation_batches(self.seed, episodes, self.device)


def subject_of(bundle: Bundle, data: str, figure: BundleFigure, seed: int) -> Subject:
    """The subject of a report on a bundle that was just measured.

    Behind an encoder, the data is read once more, as it was before the encoder.

    Args:
        bundle: the model.
        data: the data, as the user named it.
        figure: what was measured.
        seed: seed of the tasks.

    Raises:
        DataError: the data can't be read any more.
    """
    source, encoder = figure.source, bundle.manifest.encoder
    plain = source if encoder is None else load_source(data, next(iter(bundle.params.values())).device, encoder)
    return Subject(
        bundle=bundle,
        source=source,
        sampler=figure.sampler,
        originals=_with_names(plain, figure.sampler.names) if figure.sampler.labelled else None,
        texts=plain.texts,
        rate=plain.rate,
        shape=figure.shape,
        steps=figure.steps,
        seed=seed,
        headline=figure.metric,
        left_out=len(figure.left_out),
    )


def _with_names(source: DataSource, names: Sequence[str]) -> ClassExamples | None:
    """The classes of these names, in the order that a split of the source has them; None if there are none."""
    splits = [each for each in (source.test, source.validation, source.train) if isinstance(each, ClassExamples)]
    if not splits or not names:
        return None
    wanted = set(names)
    within = [each for each in splits if wanted <= set(each.names)]
    whole = within[0] if within else source.train.joined(source.validation, source.test)
    kept = whole.without([name for name in whole.names if name not in wanted])
    return kept if isinstance(kept, ClassExamples) and list(kept.names) == list(names) else None
