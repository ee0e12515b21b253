"""Shows what a model answered about the user's own files: a picture, a table, and a CSV file of all answers."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from rich.table import Column, Table

from innerloop import Prediction
from innerloop_command.console import make_console
from innerloop_command.demo.folder import DemoFolder
from innerloop_command.demo.own_files import Kind, OwnFigures, OwnTask
from innerloop_command.demo.picture import draw_task
from innerloop_learner.media import decode_audio, decode_image

SHOWN_TEXTS = 20
"""Texts in the table that is printed; the CSV file has all."""

THUMBNAIL = (128, 128)
"""Height and width of photographs in the picture, in pixels; a model sees them with these proportions, too."""

RATE, SECONDS = 8000, 1.6
"""Samples a second, and seconds, of the waveforms in the picture."""


def write_answers(task: OwnTask, answers: Sequence[Prediction], file: Path) -> None:
    """Write a row per query: the path or text, its true label, the answer, and its probability."""
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["query", "label", "answer", "probability"])
        for query, label, answer in zip(task.query, task.query_labels, answers, strict=True):
            writer.writerow([query, label, answer.label, f"{answer.probability:.4f}"])


def draw_answers(kind: Kind, task: OwnTask, answers: Sequence[Prediction], picture: Path) -> None:
    """Draw photographs or waveforms with their answers; of texts, print a table."""
    labels = [answer.label for answer in answers]
    if kind == "texts":
        _print_texts(task, labels)
        return
    support, query = ([_decoded(kind, Path(path)) for path in paths] for paths in (task.support, task.query))
    draw_task(support, task.support_labels, query, task.query_labels, labels, picture)


def print_own_figures(figures: OwnFigures, folder: DemoFolder) -> None:
    """Print the figures, and what to do next."""
    lines = [
        f"accuracy from {shots} example{'s' * (shots > 1)} of each class: {accuracy:.1%}"
        for shots, accuracy in figures.accuracy.items()
    ]
    lines[-1] += f"  ({figures.queries} queries, {figures.classes} classes, chance is {1 / figures.classes:.0%})"
    lines += [f"Adapt {figures.adapt_ms:.0f} ms, Predict p50 {figures.predict_p50_ms:.1f} ms"]
    if figures.kind != "texts":
        lines.append(f"Picture: {folder.picture.resolve()}")
    lines += [
        f"All answers: {folder.answers.resolve()}",
        f"Serve it yourself: innerloop serve --models {folder.models}",
    ]
    make_console().print("\n".join(lines), soft_wrap=True)


def _decoded(kind: Kind, path: Path) -> NDArray[Any]:
    if kind == "photos":
        return decode_image(path.read_bytes(), THUMBNAIL, "RGB")
    return decode_audio(path.read_bytes(), RATE, int(RATE * SECONDS))


def _print_texts(task: OwnTask, labels: Sequence[str]) -> None:
    table = Table("", *(Column(name, overflow="fold") for name in ("text", "answer", "label")))
    every = max(1, len(labels) // SHOWN_TEXTS)  # queries are grouped by class, and the table shows some of each
    for text, answer, label in list(zip(task.query, labels, task.query_labels, strict=True))[::every]:
        table.add_row("✓" if answer == label else "✗", str(text), answer, label)
    make_console().print(table)
