"""Tasks without labels: each image is a class of its own, whose other examples are augmentations of it.

Khodadadeh, Boloni and Shah: Unsupervised Meta-Learning for Few-Shot Image Classification. NeurIPS 2019 (UMTRA).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from innerloop_learner.augmentations import Augment
from innerloop_learner.inputs import normalise
from innerloop_learner.spec import InputSpec
from innerloop_learner.tasks import Episodes, Query, Support
from innerloop_trainer.data.class_digests import ClassDigest, example_digests
from innerloop_trainer.data.drawable_examples import DrawableExamples
from innerloop_trainer.data.example_set import ExampleSet
from innerloop_trainer.data.source import DataError, EpisodeShape, TaskSampler
from innerloop_trainer.data.support_order import draw_order


class UnlabelledImages(TaskSampler):
    """One split of images as tasks without labels.

    The W classes of a task are W images x_k drawn at random (ibid., algorithm 1, with the augmentation A):

        support set: x_k, and A(x_k) for each further shot;   queries: A(x_k)

    Two images of a task may be of one class in truth, which is rare where there are many classes. What class an image
    is of decides nothing: images are kept in an order that depends on their content alone.

    Args:
        label: name of the split in messages.
        data: images of the split. Their classes give `digests`, by which what was trained on is known again, and
            nothing else.
        spec: normalisation of the images.
        device: device to keep the images on.
        augment: augmentations.
    """

    labelled = False

    def __init__(self, label: str, data: ExampleSet, spec: InputSpec, device: torch.device, augment: Augment) -> None:
        self.digests: Mapping[str, ClassDigest] = dict(zip(data.names, data.digests, strict=True))
        digests = [digest for part in data.in_parts() for digest in example_digests(part)]
        self._order = torch.tensor(sorted(range(len(digests)), key=digests.__getitem__), device=device)
        self._images = DrawableExamples(data.examples, device)
        self._label, self._spec, self._device, self._augment = label, spec, device, augment

    @property
    def on_device(self) -> bool:
        """See TaskSampler.on_device."""
        return self._images.on_device

    def sample(self, shape: EpisodeShape, tasks: int, generator: torch.Generator) -> Episodes:
        """See TaskSampler.sample; the support set comes in random order, its labels numbered by first appearance."""
        self.check(shape)
        images = normalise(self._spec, self._images.take(self._draw(tasks, shape.ways, generator))).unsqueeze(2)
        copies = shape.shots - 1 + shape.queries
        changed = self._augment(images.expand(-1, -1, copies, -1, -1, -1), generator)  # [T, W, copies, C, H, W]
        examples = torch.cat([images, changed[:, :, : shape.shots - 1]], 2).flatten(1, 2)  # [T, S, C, H, W]
        order = draw_order(tasks, shape, generator)
        each = torch.arange(tasks, device=self._device).unsqueeze(1)
        queries = changed[:, :, shape.shots - 1 :].flatten(1, 2)
        labels = torch.arange(shape.ways, device=self._device)
        support = Support(
            x=examples[each, order],
            y=order // shape.shots,
            mask=torch.ones(order.shape, dtype=torch.bool, device=self._device),
            ways=torch.full((tasks,), shape.ways, device=self._device),
            max_ways=shape.ways,
        )
        mask = torch.ones(queries.shape[:2], dtype=torch.bool, device=self._device)
        return Episodes(support, Query(queries, mask), labels.repeat_interleave(shape.queries).repeat(tasks, 1))

    def check(self, shape: EpisodeShape) -> None:
        """See TaskSampler.check."""
        if min(shape.ways, shape.shots, shape.queries) < 1:
            raise DataError(
                f"{self._label}: --ways {shape.ways} --shots {shape.shots} --queries {shape.queries} won't do; "
                f"all must be at least 1"
            )
        if shape.wrong_labels:
            raise DataError(f"{self._label} has no labels that can be wrong; leave --wrong-labels out")
        if shape.ways > len(self._order):
            raise DataError(
                f"{self._label} has {len(self._order)} images, too few for {shape.ways} ways without labels; "
                f"lower --ways or --train-ways, or add images"
            )

    def _draw(self, tasks: int, ways: int, generator: torch.Generator) -> Tensor:
        """Rows of distinct images in random order [T, W]."""
        keys = torch.rand(tasks, len(self._order), generator=generator, device=self._device)
        return self._order[keys.topk(ways).indices]
