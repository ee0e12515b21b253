"""The `innerloop` command.

`app` lists the commands and runs one, `lazy` imports it only then. The client for the shell (`client_commands`) and
the load generator (`bench`) use the SDK alone; `demo` also trains, with the trainer's library. The commands of trainer
and server are theirs: this package only knows where they are.
"""

import os


def main() -> None:
    """Run the command that the arguments name."""
    # gRPC reads this when it is imported, which is why the rest is imported late. Its own log lines would stand between
    # ours; what they tell of errors comes back as exceptions.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from innerloop_command.app import run

    run()
