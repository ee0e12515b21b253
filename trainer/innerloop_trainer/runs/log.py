"""The logs of a run: a CSV file, TensorBoard events and a learning curve."""

import csv
import io
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TextIO

from torch.utils.tensorboard import SummaryWriter

from innerloop_learner.disk import replace_file
from innerloop_trainer.runs.folder import RunFolder


@dataclass(frozen=True)
class Row:
    """One validation, and the training since the validation before.

    Attributes:
        iteration: number of outer steps taken.
        seconds: time spent training so far, in seconds.
        tasks_per_second: tasks trained on per second since the last row.
        learning_rate: outer learning rate of the last step.
        loss: mean outer loss since the last row.
        training: accuracy, or mean squared error, of training queries since the last row.
        validation: accuracy, or mean squared error, of validation tasks.
        validation_interval: half width of the 95% confidence interval of `validation`.
    """

    iteration: int
    seconds: float
    tasks_per_second: float
    learning_rate: float
    loss: float
    training: float
    validation: float
    validation_interval: float


class RunLog:
    """Appends rows to a run's logs; rows past the iteration that a run resumes from are dropped.

    Args:
        folder: folder of the run.
        iteration: outer steps taken before, when the run starts or resumes.
    """

    def __init__(self, folder: RunFolder, iteration: int) -> None:
        kept = [row for row in read_rows(folder.log) if row.iteration <= iteration]
        text = io.StringIO(newline="")
        _writer(text).writeheader()
        _writer(text).writerows(asdict(row) for row in kept)
        replace_file(folder.log, text.getvalue().encode())
        self._file: TextIO = folder.log.open("a", newline="")
        self._events = SummaryWriter(str(folder.tensorboard), purge_step=iteration + 1)

    def write(self, row: Row) -> None:
        """Append a row."""
        _writer(self._file).writerow(asdict(row))
        self._file.flush()
        for name, value in asdict(row).items():
            if name != "iteration":
                self._events.add_scalar(name, value, row.iteration)

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        self._events.close()


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a log; none if there is no file. A line that a crash cut short is left out."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [row for line in csv.DictReader(file) if (row := _row(line))]


def _row(line: dict[str, str]) -> Row | None:
    try:
        return Row(int(line.pop("iteration")), **{name: float(value) for name, value in line.items()})
    except (KeyError, TypeError, ValueError):
        return None


def _writer(file: TextIO) -> "csv.DictWriter[str]":
    return csv.DictWriter(file, [field.name for field in fields(Row)])
