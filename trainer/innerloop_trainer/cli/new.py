"""`innerloop new`."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from innerloop_learner.spec import ClassBalance
from innerloop_trainer.cli.arguments import EncoderArgument, SignKeyOption, TokenizerOption, parse_settings
from innerloop_trainer.cli.mistakes import mistakes_as_messages
from innerloop_trainer.cli.output import console
from innerloop_trainer.cli.signing import NOT_SIGNED_ANY_MORE, is_signed, read_sign_key
from innerloop_trainer.encoders import open_files, read_encoder
from innerloop_trainer.encoders.load import computing_on
from innerloop_trainer.untrained import HeadOptions, write_untrained


def new(
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    encoder: EncoderArgument,
    out: Annotated[Path, typer.Option(help="Bundle to write, for example models/photos.")],
    head: Annotated[str, typer.Option(help="Method that answers from the features.")] = HeadOptions.method,
    max_ways: Annotated[int, typer.Option(min=2, help="Most classes that a request may have.")] = HeadOptions.max_ways,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Setting of the head, NAME=VALUE.")] = None,
    class_balance: Annotated[
        ClassBalance, typer.Option(help="How classes count when adapting: equal, or proportional to their examples.")
    ] = HeadOptions.class_balance,
    tokenizer: TokenizerOption = None,
    sign_key: SignKeyOption = None,
) -> None:
    """Make a bundle that can be served at once: a head that needs no training behind a frozen encoder."""
    with mistakes_as_messages():
        key, signed = read_sign_key(sign_key), is_signed(out)
        files = read_encoder(encoder, tokenizer)
        opened = open_files(files, computing_on(torch.device("cpu")))
        options = HeadOptions(head, parse_settings(settings), max_ways, class_balance)
        manifest = write_untrained(out, name, opened, options, key)
    console.print(
        f"{out}: version {manifest.version}, {manifest.learner.method} behind a frozen encoder; nothing was trained",
        soft_wrap=True,
    )
    if signed and key is None:
        console.print(NOT_SIGNED_ANY_MORE, style="yellow", soft_wrap=True)
