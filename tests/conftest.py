"""For all tests, and the processes that they start."""

import os

# Set before anything imports torch. Test workers and servers share the cores already; with a team of threads each,
# which spin while they wait for one another, the tests of the learner took fifty times as long on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
