"""The picture of a run."""

import io
from pathlib import Path

from matplotlib.figure import Figure

from innerloop_learner.disk import replace_file
from innerloop_trainer.runs.log import Row


def plot_learning_curve(rows: list[Row], title: str, metric: str, path: Path) -> None:
    """Draw training and validation figures over outer steps.

    Args:
        rows: rows of the run's log.
        title: title of the plot.
        metric: "accuracy" or "mean_squared_error".
        path: PNG file to write.

    Raises:
        OSError: it can't be written; what was there still is.
    """
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    iterations = [row.iteration for row in rows]
    validation = [row.validation for row in rows]
    axes.plot(iterations, [row.training for row in rows], color="tab:gray", label="training classes")
    axes.plot(iterations, validation, color="tab:blue", label="validation classes (95% confidence interval)")
    low = [row.validation - row.validation_interval for row in rows]
    high = [row.validation + row.validation_interval for row in rows]
    axes.fill_between(iterations, low, high, color="tab:blue", alpha=0.2, linewidth=0)
    axes.set_title(title, parse_math=False)  # names of data may hold dollars
    axes.set(xlabel="outer steps", ylabel=metric.replace("_", " "))
    axes.grid(alpha=0.3)
    axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    replace_file(path, picture.getvalue())
