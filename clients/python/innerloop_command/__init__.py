"""Where the `innerloop` command begins: a package of its own, to set what gRPC reads when `innerloop` imports it."""

import os

# gRPC's own log lines would stand between ours; what they tell of errors comes back as exceptions.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from innerloop.cli.main import main

__all__ = ["main"]
