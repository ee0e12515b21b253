"""One run trained by several processes, each on a part of the tasks of every outer step.

A `Group` is the processes and what they say to each other. A `Shard` is the part of one of them; it adds up what the
parts have found. `Sharded` makes an estimator of these, so that an outer loop never knows. `launched` joins processes
that torchrun started; `Workers` are processes that a run starts by itself on a CPU.
"""

from innerloop_trainer.parallel.group import ALONE, Group, ProcessError
from innerloop_trainer.parallel.sharded import Sharded, check_in_parts

__all__ = ["ALONE", "Group", "ProcessError", "Sharded", "check_in_parts"]
