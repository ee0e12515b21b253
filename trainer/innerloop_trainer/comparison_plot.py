"""The picture of a comparison of methods."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure


def plot_comparison(bars: Sequence[tuple[str, float, float]], title: str, metric: str, path: Path) -> None:
    """Draw a bar for each method.

    Args:
        bars: for each method its name, its value and the half width of its confidence interval.
        title: title of the plot.
        metric: "accuracy" or "mean_squared_error".
        path: PNG file to write.
    """
    figure = Figure(figsize=(7, 1.2 + 0.3 * len(bars)), layout="constrained")
    axes = figure.subplots()
    names, values, intervals = zip(*bars, strict=True) if bars else ((), (), ())
    axes.barh(names, values, xerr=intervals, color="tab:blue", capsize=2)
    axes.invert_yaxis()
    axes.set(xlabel=metric.replace("_", " "))
    axes.set_title(title, fontsize="small", parse_math=False)
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=120)
