"""The demo on the user's own files: a bundle that needs no training, adapted to a few of their examples."""

import random
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

import torch
import typer

from innerloop import Client, Prediction
from innerloop.checks import listing
from innerloop_command.console import print_error
from innerloop_command.demo.folder import DemoFolder
from innerloop_command.examples import labelled_files
from innerloop_command.media_folders import IMAGES, RECORDINGS
from innerloop_command.server_process import ServerProcess
from innerloop_command.text_tables import is_table, labelled_texts_in
from innerloop_learner.encoders import cut_text
from innerloop_trainer.encoders import open_files, read_encoder
from innerloop_trainer.encoders.load import computing_on
from innerloop_trainer.untrained import HeadOptions, write_untrained

Kind = Literal["photos", "texts", "audio"]

ENCODERS: dict[Kind, str] = {
    "photos": "efficientnet-lite0",
    "texts": "all-minilm-l6-v2",
    "audio": "speech-embedding",
}
"""The encoder of the catalogue that each kind of files is shown to."""

MOST_CLASSES, MOST_SHOTS, MOST_QUERIES = 10, 5, 10
"""Most classes, and most examples and queries of each: enough to see how good the answers are, in seconds."""

MOST_BYTES = 0.9
"""Share of the largest request that the examples may take; the rest is for labels and the protocol."""


@dataclass(frozen=True)
class OwnTask:
    """A task made of the user's own examples.

    Attributes:
        support: examples to learn from: paths of files, or texts.
        support_labels: their labels.
        query: other examples of the same classes.
        query_labels: their true labels.
        shots: examples of each class in `support`.
    """

    support: list[Path | str]
    support_labels: list[str]
    query: list[Path | str]
    query_labels: list[str]
    shots: int

    @property
    def classes(self) -> list[str]:
        """The labels, each once."""
        return list(dict.fromkeys(self.support_labels))

    def with_shots(self, shots: int) -> "OwnTask":
        """The same queries, to be answered from the first `shots` examples of each class."""
        places = [index for index in range(len(self.support)) if index % self.shots < shots]
        examples, labels = [self.support[index] for index in places], [self.support_labels[index] for index in places]
        return OwnTask(examples, labels, self.query, self.query_labels, shots)


@dataclass(frozen=True)
class OwnFigures:
    """Figures that the demo measured on the user's own files, by way of the server.

    Attributes:
        kind: what the files are.
        classes: number of classes.
        queries: number of queries.
        accuracy: share of right answers, by the number of examples of each class.
        adapt_ms: latency of the Adapt call with the most examples, in milliseconds.
        predict_p50_ms: median latency of a Predict call of one query, in milliseconds.
    """

    kind: Kind
    classes: int
    queries: int
    accuracy: dict[int, float]
    adapt_ms: float
    predict_p50_ms: float


def read_task(kind: Kind, path: Path) -> OwnTask:
    """Find a user's examples, and divide them into those to learn from and those to ask about.

    What is left out is said.

    Raises:
        typer.BadParameter: there are no such examples, or too few.
    """
    by_label: dict[str, list[Path | str]] = defaultdict(list)
    for example, label in zip(*_labelled(kind, path), strict=True):
        by_label[label].append(example)
    return divide(by_label, path)


def divide(by_label: dict[str, list[Path | str]], path: Path) -> OwnTask:
    """Draw a task by a fixed seed: as many examples for learning as the smallest class can spare.

    Raises:
        typer.BadParameter: fewer than two classes have two examples.
    """
    draw = random.Random(0)
    usable = sorted(label for label, examples in by_label.items() if len(examples) > 1)
    if single := sorted(by_label.keys() - set(usable)):
        print_error(f"left out, since there is only one example of each: {listing(single, ', ')}")
    if len(usable) < 2:
        raise typer.BadParameter(f"{path} needs two classes or more, with at least two examples of each")
    chosen = sorted(draw.sample(usable, min(len(usable), MOST_CLASSES)))
    if len(chosen) < len(usable):
        print_error(f"shown: {len(chosen)} of {len(usable)} classes, {', '.join(chosen)}")
    shots = min(MOST_SHOTS, *(len(by_label[label]) // 2 for label in chosen))
    task = OwnTask([], [], [], [], shots)
    for label in chosen:
        drawn = draw.sample(by_label[label], min(len(by_label[label]), shots + MOST_QUERIES))
        task.support.extend(drawn[:shots])
        task.query.extend(drawn[shots:])
        task.support_labels.extend([label] * shots)
        task.query_labels.extend([label] * (len(drawn) - shots))
    return task


def write_bundle(kind: Kind, folder: DemoFolder) -> None:
    """Write a bundle that needs no training.

    Raises:
        ConfigError: the encoder is not installed.
    """
    encoder = open_files(read_encoder(ENCODERS[kind]), computing_on(torch.device("cpu")))
    write_untrained(folder.bundle, folder.bundle.name, encoder, HeadOptions())


def measure(kind: Kind, task: OwnTask, folder: DemoFolder) -> tuple[OwnFigures, OwnTask, Sequence[Prediction]]:
    """Serve the demo's bundle, adapt it to the task, and ask.

    Returns:
        the figures, the task with the most examples that were learned from, and the answers to its queries.
    """
    accuracy: dict[int, float] = {}
    with ServerProcess(folder.models) as server, Client(server.target) as client:
        name = folder.bundle.name
        task = _that_fits(task, client.model(name).limits.max_request_bytes)
        # The most examples come last, so that the answers which are returned are theirs.
        for shots in sorted({1, task.shots}):
            shown = task.with_shots(shots)
            started = time.perf_counter()
            adaptation = client.adapt(name, shown.support, shown.support_labels)
            adapt_ms = (time.perf_counter() - started) * 1e3
            answers = list(adaptation.predict(shown.query))
            right = [answer.label == label for answer, label in zip(answers, shown.query_labels, strict=True)]
            accuracy[shots] = sum(right) / len(right)
        predict_ms = []
        for query in task.query[:20]:
            started = time.perf_counter()
            adaptation.predict([query])
            predict_ms.append((time.perf_counter() - started) * 1e3)
    figures = OwnFigures(kind, len(task.classes), len(answers), accuracy, adapt_ms, median(predict_ms))
    return figures, task, answers


def _labelled(kind: Kind, path: Path) -> tuple[Sequence[Path | str], Sequence[str]]:
    if kind == "texts":
        if not is_table(path):
            raise typer.BadParameter(f"{path} is no CSV file with columns text and label")
        texts, labels = labelled_texts_in(path)
        return [cut_text(text) for text in texts], labels
    if not path.is_dir():
        raise typer.BadParameter(f"{path} is no folder; unpack archives first")
    found = labelled_files([str(path)], IMAGES if kind == "photos" else RECORDINGS)
    if found.left_out:
        print_error(f"left out {len(found.left_out)}: {listing(found.left_out, ', ')}")
    return found.paths, found.labels


def _that_fits(task: OwnTask, max_request_bytes: int) -> OwnTask:
    """The task with as many examples of each class as one request has room for."""
    most = MOST_BYTES * max_request_bytes
    for shots in range(task.shots, 1, -1):
        shown = task.with_shots(shots)
        if not most or sum(path.stat().st_size for path in shown.support if isinstance(path, Path)) <= most:
            return shown
    return task.with_shots(1)
