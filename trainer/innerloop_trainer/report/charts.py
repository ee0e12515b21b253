"""Charts as SVG that takes its colours from the page around it."""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from innerloop_trainer.report.embedding import Map
from innerloop_trainer.report.failures import Fit
from innerloop_trainer.report.grids import Point
from innerloop_trainer.report.reliability import Reliability
from innerloop_trainer.report.trajectory import Step

INK = "#010203"
"""Colour of lines and letters while a chart is drawn; the page's own takes its place, so that it suits a dark page."""

COLOURS = (
    *("#3b82c4", "#d9822b", "#3f9c5a", "#c94f4f", "#8a6fc2"),
    *("#9b7355", "#cf6fae", "#7d8590", "#a8a02a", "#2aa3b0"),
)
"""Colours of lines and points: of middle lightness, to be seen on white and on black."""
MARKERS = "osD^vPX*<>"

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "innerloop",
    "text.parse_math": False,  # names may hold dollars
    "font.family": "sans-serif",
    "font.size": 10,
    **{f"{part}.color": INK for part in ("text", "xtick", "ytick", "grid")},
    **{f"axes.{part}": INK for part in ("edgecolor", "labelcolor")},
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def line_chart(points: Sequence[Point], across: str, up: str) -> str:
    """Means with their intervals, by size."""
    return _means([each.size for each in points], points, across, up)


def steps_chart(steps: Sequence[Step], up: str) -> str:
    """Means with their intervals, by inner steps."""
    return _means([each.steps for each in steps], steps, "inner steps", up)


def losses_chart(steps: Sequence[Step]) -> str:
    """Losses of support examples and of queries, by inner steps."""

    def draw(axes: Axes) -> None:
        numbers = range(len(steps))
        axes.plot(numbers, [each.support_loss for each in steps], color=COLOURS[0], marker="o", label="support")
        axes.plot(numbers, [each.query_loss for each in steps], color=COLOURS[1], marker="s", label="queries")
        axes.set_xticks(numbers, [str(each.steps) for each in steps])
        axes.set(xlabel="inner steps", ylabel="loss")
        axes.legend()

    return _svg(draw)


def reliability_chart(found: Reliability) -> str:
    """How often answers are right, by how sure they are."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=1)
        for label, own, colour, marker in (
            ("plain", found.before, COLOURS[1], "s"),
            ("calibrated", found.after, COLOURS[0], "o"),
        ):
            if own:
                axes.plot(
                    [each.sure for each in own],
                    [each.right for each in own],
                    color=colour,
                    marker=marker,
                    label=label,
                )
        axes.set(xlabel="largest probability", ylabel="share that is right", xlim=(0, 1.02), ylim=(0, 1.02))
        axes.legend()

    return _svg(draw)


def map_chart(found: Map) -> str:
    """The places of examples, a colour and a form for each class."""

    def draw(axes: Axes) -> None:
        for number, points in enumerate(found.points):
            axes.scatter(
                points[:, 0], points[:, 1], s=22, color=COLOURS[number], marker=MARKERS[number], alpha=0.8, linewidths=0
            )
        axes.set(xlabel="first component", ylabel="second component")

    return _svg(draw)


def fit_chart(fit: Fit) -> str:
    """Support points, true values of queries, and what the model gave."""

    def draw(axes: Axes) -> None:
        x, true, given = fit.query
        order = x.argsort()
        axes.plot(x[order].tolist(), true[order].tolist(), color=COLOURS[2], marker=".", label="true")
        axes.plot(x[order].tolist(), given[order].tolist(), color=COLOURS[1], marker=".", label="given")
        axes.scatter(*(each.tolist() for each in fit.support), color=COLOURS[0], zorder=3, label="support")
        axes.set(xlabel="input", ylabel="value")
        axes.legend()

    return _svg(draw)


def _means(sizes: Sequence[int], figures: Sequence[Point | Step], across: str, up: str) -> str:
    def draw(axes: Axes) -> None:
        means, intervals = [each.mean for each in figures], [each.interval for each in figures]
        axes.errorbar(range(len(sizes)), means, intervals, color=COLOURS[0], marker="o", capsize=3)
        axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
        axes.set(xlabel=across, ylabel=up)

    return _svg(draw)


def _svg(draw: Any) -> str:
    """The SVG element of what a function draws, without what a page does not need."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        axes.grid(alpha=0.15, linewidth=0.8)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' id="[A-Za-z.]+[A-Za-z0-9.]*_\d+"', "", text)  # of groups: charts of one page would share them
    return text.replace(INK, "currentColor")
