"""One run trained by several processes, each on a part of the tasks of every outer step.

A `Group` is the processes and what they say to each other. A `Shard` is the part of one of them; it adds up what the
parts have found. `Sharded` makes an estimator of these, so that an outer loop never knows. `launched` joins processes
that torchrun started; `Workers` are processes that a run starts by itself on a CPU, and `ThreadsOrWorkers` takes them
where they are faster than threads inside operations.
"""

from innerloop_trainer.parallel.choice import ThreadsOrWorkers
from innerloop_trainer.parallel.group import ALONE, Group, ProcessError
from innerloop_trainer.parallel.launched import Launch, read_launch
from innerloop_trainer.parallel.sharded import Sharded, check_in_parts

__all__ = [
    "ALONE",
    "Group",
    "Launch",
    "ProcessError",
    "Sharded",
    "ThreadsOrWorkers",
    "check_in_parts",
    "read_launch",
]
