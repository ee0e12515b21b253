"""The logs of a run: a CSV file, TensorBoard events and a learning curve."""

import csv
import io
import os
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

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

    A row that finds no room on the disk stays in memory, and `write` can be called again when there may be some.
    TensorBoard's own writer would end there, and lose its events, so they are written here.

    Args:
        folder: folder of the run.
        iteration: outer steps taken before, when the run starts or resumes.

    Raises:
        OSError: the files can't be written.
    """

    def __init__(self, folder: RunFolder, iteration: int) -> None:
        kept = [row for row in read_rows(folder.log) if row.iteration <= iteration]
        replace_file(folder.log, _lines(kept, header=True))
        folder.tensorboard.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}"  # as TensorBoard expects it to begin
        self._csv, self._events = _WholeRecords(folder.log), _WholeRecords(folder.tensorboard / name)
        begins = [Event(file_version="brain.Event:2"), Event(session_log=SessionLog(status=SessionLog.START))]
        # TensorBoard leaves out what an earlier file of this run has of the step where this one begins, and later.
        self._waiting = [(self._events, _records(begins, iteration + 1))]
        self.write()

    def add(self, row: Row) -> None:
        """Append a row with the next `write`."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in asdict(row).items()]
        events = [Event(summary=Summary(value=[value])) for value in values if value.tag != "iteration"]
        self._waiting += [(self._csv, _lines([row])), (self._events, _records(events, row.iteration))]

    def write(self) -> None:
        """Write what was added and is not written yet.

        Raises:
            OSError: not all of it can be written.
        """
        while self._waiting:
            file, content = self._waiting[0]
            file.append(content)
            del self._waiting[0]

    def close(self) -> None:
        """Close the files."""
        self._csv.close()
        self._events.close()


class _WholeRecords:
    """A file that grows by all of what is appended, or not at all.

    Args:
        path: the file, which is made if there is none.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def append(self, content: bytes) -> None:
        """Append.

        Raises:
            OSError: it can't be written, and the file is as it was.
        """
        end = self._file.seek(0, os.SEEK_END)
        rest = memoryview(content)
        try:
            while rest:
                rest = rest[self._written(rest) :]
        except OSError:
            with suppress(OSError):
                self._file.truncate(end)
            raise

    def _written(self, content: memoryview) -> int:
        """How many bytes the disk has taken, which may be fewer where it has no room for all."""
        return self._file.write(content)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


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


def _lines(rows: list[Row], *, header: bool = False) -> bytes:
    """Rows as lines of the CSV file."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in fields(Row)])
    if header:
        writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue().encode()


def _records(events: list[Event], step: int) -> bytes:
    """Events of now and of an outer step as records of TensorBoard's file."""
    content = io.BytesIO()
    for event in events:
        event.wall_time, event.step = time.time(), step
        RecordWriter(content).write(event.SerializeToString())
    return content.getvalue()
