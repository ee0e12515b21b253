"""How a run is carried out, which changes nothing of what it learns."""

from dataclasses import dataclass

from innerloop_trainer.parallel import ALONE, Group
from innerloop_trainer.runs.checkpoints import KEPT

SAVE_MINUTES = 10.0
"""Minutes after which a run is saved, which is the most training that is lost when a machine dies."""


@dataclass(frozen=True)
class Conduct:
    """How a run is carried out.

    Attributes:
        save_minutes: minutes after which the run is saved, besides at validations and at its end.
        keep_checkpoints: number of checkpoints to keep, the latest among them.
        group: processes that train the run together, each of which has the same plan.
        workers: processes of one thread each that divide the tasks of an outer step on a CPU, this one among them; 1
            for none but this one with all its threads, and None for whichever is faster.
        replay: whether a process that trains alone on a GPU records its outer steps, and replays them as CUDA graphs.
    """

    save_minutes: float = SAVE_MINUTES
    keep_checkpoints: int = KEPT
    group: Group = ALONE
    workers: int | None = 1
    replay: bool = True


USUAL = Conduct()
