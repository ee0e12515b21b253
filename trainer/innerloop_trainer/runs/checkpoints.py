"""Writes the checkpoints of a run while its training goes on."""

from collections.abc import Mapping
from threading import Thread

from torch import Tensor

from innerloop_trainer.runs.folder import Progress, RunFolder

KEPT = 2
"""Checkpoints of a run that are kept unless the user says otherwise: the latest, and the one before it in case that the
latest is damaged."""


class Checkpoints:
    """Writes one checkpoint at a time, in a thread of its own.

    A checkpoint that can't be written leaves the one before as it is, and training goes on: the disk may have room
    again when the next one is due.

    Args:
        folder: folder of the run.
        keep: number of checkpoints to keep.

    Attributes:
        problem: error of the last write that has ended; None if it went well.
    """

    def __init__(self, folder: RunFolder, keep: int = KEPT) -> None:
        self.problem: OSError | None = None
        self._folder, self._keep = folder, keep
        self._writing: Thread | None = None

    def save(self, state: Mapping[str, Tensor], progress: Progress) -> None:
        """Take a copy of a state and begin to write it; waits for the end of the write before."""
        self.wait()
        # The copy is made now, since the next outer step changes the tensors in place.
        copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in state.items()}
        self._writing = Thread(target=self._write, args=(copies, progress), name="checkpoint")
        self._writing.start()

    def wait(self) -> None:
        """Wait until what was begun is written, or could not be."""
        if self._writing is not None:
            self._writing.join()
            self._writing = None

    def must_be_written(self) -> None:
        """Wait, too, and check that the latest state is on disk.

        Raises:
            OSError: it could not be written.
        """
        self.wait()
        if self.problem is not None:
            raise self.problem

    def _write(self, state: Mapping[str, Tensor], progress: Progress) -> None:
        try:
            self._folder.save_latest(state, progress, keep=self._keep)
        except OSError as error:
            self.problem = error
        else:
            self.problem = None
