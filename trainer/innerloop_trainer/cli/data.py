"""`innerloop data pack`."""

from pathlib import Path
from typing import Annotated

import typer

from innerloop_trainer.cli.display import print_notices
from innerloop_trainer.cli.interrupts import ending_as_by_ctrl_c
from innerloop_trainer.cli.mistakes import mistakes_as_messages
from innerloop_trainer.cli.output import console
from innerloop_trainer.cli.progress import progress_on_stderr
from innerloop_trainer.data import pack as write_pack

data = typer.Typer(no_args_is_help=True, help="Prepare data.")


@data.callback()
def _data() -> None:
    """Prepare data."""


@data.command()
def pack(
    source: Annotated[str, typer.Argument(help="Data source, for example images:PATH?size=84.")],
    out: Annotated[Path, typer.Option(help="Folder to write; train with --data packed:FOLDER.")],
) -> None:
    """Write a data source to disk as it is drawn: for data larger than memory, which is then read from there."""
    with mistakes_as_messages(), progress_on_stderr(), ending_as_by_ctrl_c():
        packed = write_pack(source, out)
    console.print(packed.source.description, soft_wrap=True)
    print_notices(packed.source)
    console.print(f"{out}: {packed.examples:,} examples, {packed.bytes / 1e6:,.1f} MB", soft_wrap=True)
    console.print(f"Train with --data packed:{out}", soft_wrap=True)
