"""Few-shot classification episodes, drawn from the examples of classes."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from innerloop_learner.augmentations import Augment
from innerloop_learner.inputs import normalise
from innerloop_learner.spec import InputSpec
from innerloop_learner.tasks import Episodes, Query, Support
from innerloop_trainer.data.drawable_examples import DrawableExamples
from innerloop_trainer.data.example_set import ExampleSet
from innerloop_trainer.data.source import DataError, DataSource, EpisodeShape, TaskSampler
from innerloop_trainer.data.speaker_sides import NoDivisionError, divide_speakers
from innerloop_trainer.data.support_order import draw_order
from innerloop_trainer.data.unlabelled import UnlabelledImages
from innerloop_trainer.data.wrong_labels import by_appearance, mislabelled


@dataclass(frozen=True)
class RawEpisodes:
    """T sampled tasks with raw inputs, before normalisation, as a client would send them to a server.

    Attributes:
        support: inputs [T, S, *input], in random order.
        support_labels: [T, S] int64 in `0 .. ways - 1`, numbered by first appearance, as a server numbers them; some
            are wrong if the shape of the episodes says so.
        query: inputs [T, Q, *input], grouped by class.
        query_labels: [T, Q] int64.
        classes: [T, ways] int64, which class of the split each label of a task stands for (see `ClassExamples.names`).
    """

    support: Tensor
    support_labels: Tensor
    query: Tensor
    query_labels: Tensor
    classes: Tensor


class ClassExamples(TaskSampler):
    """One split of a data set of classes.

    Where examples have speakers, each task divides these at random: the support examples of all its classes are by the
    speakers of one half, about, and its queries by the others.

    Where classes have domains, the classes of a task are of one. Domains that have enough classes come in turn, in an
    order drawn anew each time round, so that the tasks of a batch are of as many of them as there can be.

    Args:
        label: name of the split in messages, for example "omniglot:random, test split".
        data: examples of the split.
        spec: normalisation of the examples.
        device: device that episodes are drawn on, and that the examples are kept on unless they lie on disk.

    Attributes:
        names: names of the classes.
        digests: digests of the classes, as in `TaskSampler`.
        labelled: whether any two examples are of one class, as in `TaskSampler`.
        data: the examples, as given.
    """

    def __init__(self, label: str, data: ExampleSet, spec: InputSpec, device: torch.device) -> None:
        self.names = data.names
        self.digests = dict(zip(data.names, data.digests, strict=True))
        self._label = label
        self._spec = spec
        self._device = device
        self.data = data
        self._sizes = data.counts.tolist()
        self.labelled = max(self._sizes, default=2) > 1
        self._counts = torch.from_numpy(data.counts).to(device)  # [K]
        self._starts = self._counts.cumsum(0) - self._counts  # [K]
        self._drawable = DrawableExamples(data.examples, device)
        self._speakers = None if data.speakers is None else torch.from_numpy(data.speakers).to(device)  # [N]
        self._divisions = dict[tuple[int, int], Tensor]()
        self._domain_names, numbers = np.unique(data.domains or (), return_inverse=True)
        self._domains = None if data.domains is None else torch.from_numpy(numbers).to(device)  # [K]
        self._domain_sizes = np.bincount(numbers).tolist()
        self._suited = dict[int, Tensor]()

    @property
    def on_device(self) -> bool:
        """See TaskSampler.on_device."""
        return self._drawable.on_device

    def domains(self, shape: EpisodeShape) -> Sequence[str]:
        """See TaskSampler.domains."""
        return [str(self._domain_names[number]) for number in self._domains_for(shape.ways)]

    @property
    def ways_anywhere(self) -> int:
        """See TaskSampler.ways_anywhere."""
        return min(self._domain_sizes, default=len(self.names))

    def sample(self, shape: EpisodeShape, tasks: int, generator: torch.Generator) -> Episodes:
        """See TaskSampler.sample; the support set comes in random order, its labels numbered by first appearance.

        >>> from innerloop_trainer.data import load_source
        >>> split = load_source("digits").train
        >>> episodes = split.sample(EpisodeShape(ways=5, shots=2, queries=3), 4, torch.Generator().manual_seed(0))
        >>> tuple(episodes.support.x.shape), tuple(episodes.query.x.shape)
        ((4, 10, 1, 8, 8), (4, 15, 1, 8, 8))
        """
        raw = self.sample_raw(shape, tasks, generator)
        support = Support(
            x=normalise(self._spec, raw.support),
            y=raw.support_labels,
            mask=torch.ones(raw.support_labels.shape, dtype=torch.bool, device=self._device),
            ways=torch.full((tasks,), shape.ways, device=self._device),
            max_ways=shape.ways,
        )
        mask = torch.ones(raw.query_labels.shape, dtype=torch.bool, device=self._device)
        domains = None if self._domains is None else self._domains[raw.classes[:, 0]]
        return Episodes(support, Query(normalise(self._spec, raw.query), mask), raw.query_labels, raw.classes, domains)

    def sample_raw(self, shape: EpisodeShape, tasks: int, generator: torch.Generator) -> RawEpisodes:
        """The same tasks as `sample` draws from an equal generator, not normalised.

        Args:
            shape: shape of the episodes.
            tasks: number of tasks.
            generator: generator on the device of the examples.

        Raises:
            DataError: the split has too few classes or examples for `shape`.
        """
        self.check(shape)
        classes = self._draw_classes(tasks, shape.ways, generator)
        rows = self._draw_examples(classes, shape, generator)  # [T, W, shots + queries]
        order = draw_order(tasks, shape, generator)
        labels = torch.arange(shape.ways, device=classes.device)
        raw = RawEpisodes(
            support=self._drawable.take(rows[..., : shape.shots].flatten(1).gather(1, order)),
            support_labels=order // shape.shots,
            query=self._drawable.take(rows[..., shape.shots :].flatten(1)),
            query_labels=labels.repeat_interleave(shape.queries).repeat(tasks, 1),
            classes=classes,
        )
        return self._with_wrong_labels(raw, shape, generator) if shape.most_wrong else raw

    def check(self, shape: EpisodeShape) -> None:
        """See TaskSampler.check."""
        if not self.names:
            raise DataError(f"{self._label} has no classes; add classes, or lower val and test")
        if min(shape.ways, shape.shots, shape.queries) < 1:
            raise DataError(
                f"{self._label}: --ways {shape.ways} --shots {shape.shots} --queries {shape.queries} won't do; "
                f"all must be at least 1"
            )
        if shape.ways > len(self.names):
            raise DataError(
                f"{self._label} has {len(self.names)} classes, too few for {shape.ways} ways; "
                f"lower --ways to {len(self.names)} or add classes"
            )
        if self._domains is not None and not self._domains_for(shape.ways):
            largest = max(self._domain_sizes)
            raise DataError(
                f"{self._label}: no domain has {shape.ways} classes for an episode of its own, at most {largest}; "
                f"lower --ways or --train-ways to {largest}, or read the data without ?domains="
            )
        if not self.labelled:
            raise DataError(
                f"{self._label} has no labels: no two of its examples are of one class; give each class a folder of "
                f"its own, or train without labels (--unlabelled)"
            )
        needed = shape.shots + shape.queries
        short = [index for index, size in enumerate(self._sizes) if size < needed]
        if short:
            more = f" ({len(short) - 1} more classes have too few)" if len(short) > 1 else ""
            raise DataError(
                f"{self._label}: class {self.names[short[0]]!r} has {self._sizes[short[0]]} examples, but {needed} are "
                f"needed for {shape.shots} shots and {shape.queries} queries; lower --shots or --queries, or add "
                f"examples{more}"
            )
        if self._speakers is not None:
            self._divisions_for(shape, self._speakers)

    def with_inputs(self, change: Callable[[ExampleSet], ExampleSet], spec: InputSpec) -> "ClassExamples":
        """The same split with other inputs; its classes keep their digests.

        Args:
            change: function that makes the other examples; classes and order must stay the same.
            spec: normalisation of the other examples.
        """
        return ClassExamples(self._label, change(self.data), spec, self._device)

    def without_labels(self, augment: Augment) -> TaskSampler:
        """See TaskSampler.without_labels."""
        if self._spec.dtype != "uint8" or len(self._spec.shape) != 3 or self.data.examples.dtype == object:
            raise DataError(f"{self._label} is not of images; only these can be learned from without labels")
        return UnlabelledImages(self._label, self.data, self._spec, self._device, augment)

    def without(self, names: Collection[str]) -> "ClassExamples":
        """See TaskSampler.without."""
        kept = [name for name in self.names if name not in names]
        if not kept:
            raise DataError(f"{self._label} is empty; add classes or change the split")
        return ClassExamples(self._label, self.data.select(kept), self._spec, self._device)

    def joined(self, *others: TaskSampler) -> "ClassExamples":
        """See TaskSampler.joined."""
        samplers = [self, *(other for other in others if isinstance(other, ClassExamples))]
        parts = [each.data for each in samplers if each.names] or [self.data]
        label = f"{self._label.rpartition(', ')[0]}, all classes"
        if len({frozenset(() if part.speakers is None else part.speakers.tolist()) for part in parts}) > 1:
            raise DataError(
                f"{label}: each split has speakers of its own, so that voices would tell classes apart; read the data "
                "with ?test_speakers=0"
            )
        together = parts[0].joined(*parts[1:])
        return ClassExamples(label, together, self._spec, self._device)

    def _with_wrong_labels(self, raw: RawEpisodes, shape: EpisodeShape, generator: torch.Generator) -> RawEpisodes:
        """The same tasks, some of whose support labels are wrong; a label's number is that of its first appearance."""
        wrong = torch.randint(shape.most_wrong + 1, (len(raw.classes),), generator=generator, device=self._device)
        given = mislabelled(raw.support_labels, shape.ways, wrong, generator)
        places = by_appearance(given, shape.ways)  # [T, W]
        return replace(
            raw,
            support_labels=places.gather(1, given),
            query_labels=places.gather(1, raw.query_labels),
            classes=torch.empty_like(raw.classes).scatter(1, places, raw.classes),
        )

    def _draw_classes(self, tasks: int, ways: int, generator: torch.Generator) -> Tensor:
        """Distinct classes in random order [T, W]."""
        keys = torch.rand(tasks, len(self.names), generator=generator, device=self._device)
        if self._domains is not None:
            drawn = self._draw_domains(tasks, ways, generator)
            keys = keys.masked_fill(self._domains != drawn.unsqueeze(1), -1.0)
        return keys.topk(ways).indices

    def _draw_domains(self, tasks: int, ways: int, generator: torch.Generator) -> Tensor:
        """The domain of each task [T]: all that have enough classes in turn, in random order."""
        if ways not in self._suited:  # kept, since the host waits for every copy to a GPU
            self._suited[ways] = torch.tensor(self._domains_for(ways), device=self._device)
        suited = self._suited[ways]
        rounds = -(-tasks // len(suited))
        keys = torch.rand(rounds, len(suited), generator=generator, device=self._device)
        return suited[keys.argsort(1).flatten()[:tasks]]

    def _domains_for(self, ways: int) -> list[int]:
        """Numbers of the domains that have so many classes."""
        return [number for number, size in enumerate(self._domain_sizes) if size >= ways]

    def _draw_examples(self, classes: Tensor, shape: EpisodeShape, generator: torch.Generator) -> Tensor:
        """Rows of distinct examples of each class [T, W, shots + queries], those of the support set first."""
        largest = max(self._sizes)
        keys = torch.rand(*classes.shape, largest, generator=generator, device=classes.device)
        numbers = torch.arange(largest, device=classes.device)
        absent = numbers >= self._counts[classes].unsqueeze(-1)
        keys = keys.masked_fill(absent, -1.0)
        starts = self._starts[classes].unsqueeze(-1)
        if self._speakers is None:
            return starts + keys.topk(shape.shots + shape.queries).indices
        divisions = self._divisions_for(shape, self._speakers)  # [D, G]
        drawn = torch.randint(len(divisions), (len(classes),), generator=generator, device=classes.device)
        speakers = self._speakers[(starts + numbers).masked_fill(absent, 0)]  # [T, W, largest]
        supports = divisions[drawn].gather(1, speakers.flatten(1)).view_as(speakers)
        support = keys.masked_fill(~supports, -1.0).topk(shape.shots).indices
        query = keys.masked_fill(supports, -1.0).topk(shape.queries).indices
        return starts + torch.cat([support, query], -1)

    def _divisions_for(self, shape: EpisodeShape, speakers: Tensor) -> Tensor:
        """Divisions of the speakers [D, G] that serve every class in tasks of this shape; true for support sets.

        Raises:
            DataError: there are none.
        """
        sides = (shape.shots, shape.queries)
        if sides not in self._divisions:
            classes = np.repeat(np.arange(len(self.names)), self._sizes)
            counts = np.zeros((len(self.names), int(speakers.max()) + 1), np.int64)
            np.add.at(counts, (classes, speakers.cpu().numpy()), 1)
            try:
                self._divisions[sides] = torch.from_numpy(divide_speakers(counts, *sides)).to(self._device)
            except NoDivisionError as error:
                own = np.count_nonzero(counts[error.row])
                raise DataError(
                    f"{self._label}: class {self.names[error.row]!r} has {self._sizes[error.row]} examples by {own} "
                    f"speaker{'' if own == 1 else 's'}, but {shape.shots} for the support set and {shape.queries} for "
                    f"queries are needed by different ones; lower --shots or --queries, or add speakers"
                ) from error
        return self._divisions[sides]


def source_of_classes(
    name: str,
    description: str,
    spec: InputSpec,
    device: torch.device,
    *,
    train: ExampleSet,
    validation: ExampleSet,
    test: ExampleSet,
    options: Mapping[str, str],
    texts: bool = False,
    rate: int = 0,
    notices: Sequence[str] = (),
) -> DataSource:
    """A data source of classes.

    Args:
        name: name of the source as in `DataSource.name`.
        description: description for people.
        spec: shape and normalisation of its inputs.
        device: device that episodes are sampled on.
        train: examples of the training classes.
        validation: examples of the validation classes.
        test: examples of the test classes.
        options: options of the source as in `DataSource.options`.
        texts: whether inputs are texts.
        rate: sampling rate of inputs that are recordings, in Hz.
        notices: notices for the user as in `DataSource.notices`.
    """

    def split(label: str, data: ExampleSet) -> ClassExamples:
        return ClassExamples(f"{name}, {label} split", data, spec, device)

    return DataSource(
        name=name,
        description=description,
        input=spec,
        task_kind="classification",
        target_size=0,
        train=split("training", train),
        validation=split("validation", validation),
        test=split("test", test),
        texts=texts,
        rate=rate,
        options=options,
        notices=tuple(notices),
    )
