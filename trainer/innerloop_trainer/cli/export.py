"""`innerloop export`."""

from pathlib import Path
from typing import Annotated

import typer

from innerloop_learner.bundle import load_bundle
from innerloop_trainer.cli.arguments import SignKeyOption
from innerloop_trainer.cli.mistakes import mistakes_as_messages
from innerloop_trainer.cli.output import console
from innerloop_trainer.cli.signing import NOT_SIGNED_ANY_MORE, is_signed, read_sign_key
from innerloop_trainer.export import export_bundle
from innerloop_trainer.runs.folder import find_bundle


def export(
    source: Annotated[Path, typer.Argument(help="A run or a bundle.", metavar="RUN_OR_BUNDLE")],
    out: Annotated[Path, typer.Option(help="Bundle to write; its folder's name becomes the model's name.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="Add the whole inner loop as ONNX graphs.")] = False,
    sign_key: SignKeyOption = None,
) -> None:
    """Write a bundle for the server from the best parameters of a run, or from another bundle."""
    with mistakes_as_messages():
        key, signed = read_sign_key(sign_key), is_signed(out)
        manifest = export_bundle(load_bundle(find_bundle(source)), out, onnx=onnx, key=key)
    console.print(f"{out}: version {manifest.version}", soft_wrap=True)
    if signed and key is None:
        console.print(NOT_SIGNED_ANY_MORE, style="yellow", soft_wrap=True)
    if manifest.graphs is not None and manifest.graphs.refused:
        console.print(f"without ONNX graphs: {manifest.graphs.refused}", style="yellow", soft_wrap=True)
