"""A picture of one task: what was shown, what was asked, what was answered."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

RIGHT, WRONG = "#1a7f37", "#cf222e"


def draw_task(
    support: Sequence[NDArray[Any]] | NDArray[Any],
    support_labels: Sequence[str],
    query: Sequence[NDArray[Any]] | NDArray[Any],
    query_labels: Sequence[str],
    predicted: Sequence[str],
    path: Path,
) -> None:
    """Draw a row per class: its support examples, then its queries with the predicted label.

    Right answers are framed green and ticked, wrong ones framed red, crossed, and name the label that was taken.

    Args:
        support: S images [C, H, W] uint8, or S waveforms [N].
        support_labels: S labels.
        query: Q images or waveforms.
        query_labels: Q true labels.
        predicted: Q predicted labels.
        path: PNG to write.
    """
    classes = list(dict.fromkeys(support_labels))
    # Class names can be long; in the picture a class is a letter, explained at its row.
    letters = {name: chr(ord("A") + index) for index, name in enumerate(classes)}
    rows = [
        (
            [image for image, label in zip(support, support_labels, strict=True) if label == name],
            [index for index, label in enumerate(query_labels) if label == name],
        )
        for name in classes
    ]
    shown = max(len(examples) for examples, _ in rows)
    columns = shown + max(len(asked) for _, asked in rows)
    figure = Figure(figsize=(1.15 * columns + 1.6, 1.3 * len(classes) + 0.9), layout="constrained")
    grid = figure.subplots(len(classes), columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for name, (examples, asked), cells in zip(classes, rows, grid, strict=True):
        for axes, image in zip(cells, examples, strict=False):
            _show(axes, image, f"{letters[name]}: {_shortened(name)}", "black", 1)
        for axes, index in zip(cells[shown:], asked, strict=False):
            right = predicted[index] == name
            title = f"✓ {letters[name]}" if right else f"✗ {letters[predicted[index]]}, is {letters[name]}"
            _show(axes, query[index], title, RIGHT if right else WRONG, 3)
    correct = np.mean([answer == truth for answer, truth in zip(predicted, query_labels, strict=True)])
    figure.suptitle(f"Left: the examples learned from. Right: queries and answers, {correct:.0%} correct.", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # labels in letters that the font lacks show as boxes
        figure.savefig(path, dpi=110)


def _show(axes: Axes, example: NDArray[Any], title: str, colour: str, border: float) -> None:
    axes.axis("on")
    if example.ndim == 1:
        axes.plot(example, linewidth=0.4, color="black")
        axes.set_box_aspect(0.6)
    else:
        pixels = example.transpose(1, 2, 0)
        axes.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=8, color=colour, parse_math=False)  # a label may hold dollars
    for spine in axes.spines.values():
        spine.set(edgecolor=colour, linewidth=border)


def _shortened(name: str) -> str:
    return name if len(name) <= 16 else f"…{name[-15:]}"
