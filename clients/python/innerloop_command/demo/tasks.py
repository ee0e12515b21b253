"""Draws tasks with the names of their classes, and writes one as image files to try commands on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from innerloop_trainer.data import ClassExamples, EpisodeShape
from innerloop_trainer.seeds import generator_for


@dataclass(frozen=True)
class Task:
    """One episode.

    Attributes:
        support: images [S, C, H, W] uint8.
        support_labels: names of their classes.
        query: images [Q, C, H, W] uint8.
        query_labels: names of their classes.
    """

    support: NDArray[Any]
    support_labels: list[str]
    query: NDArray[Any]
    query_labels: list[str]


def draw_tasks(sampler: ClassExamples, shape: EpisodeShape, tasks: int) -> list[Task]:
    """Episodes with the names of their classes; the same ones in every run."""
    raw = sampler.sample_raw(shape, tasks, generator_for(0, "demo"))
    return [
        Task(
            raw.support[index].numpy(),
            [sampler.names[int(raw.classes[index, label])] for label in raw.support_labels[index]],
            raw.query[index].numpy(),
            [sampler.names[int(raw.classes[index, label])] for label in raw.query_labels[index]],
        )
        for index in range(tasks)
    ]


def save_task(task: Task, folder: Path) -> None:
    """Write FOLDER/support/LABEL/N.png and FOLDER/query/LABEL/N.png."""
    for part, images, labels in (
        ("support", task.support, task.support_labels),
        ("query", task.query, task.query_labels),
    ):
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            # A label can be any character, "/" and "." among them, which name no folder.
            path = folder / part / label.replace("/", "-").replace(".", "_") / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = image.transpose(1, 2, 0)
            Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(path)
