"""`innerloop signing-key`, `sign` and `verify`: bundles of which a server knows who made them. They need no PyTorch."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from innerloop_command.console import print_error, print_line
from innerloop_learner.manifest import BundleError, Manifest, read_files, read_manifest, sign_bundle
from innerloop_learner.signatures import (
    KeyFileError,
    public_file,
    read_signing_key,
    read_trusted_keys,
    write_new_key,
)

app = typer.Typer(no_args_is_help=True, add_completion=False)

Bundles = Annotated[list[Path], typer.Argument(help="Folders of bundles.", metavar="BUNDLE...")]


@app.command()
def signing_key(
    file: Annotated[Path, typer.Argument(help="File of the private key; the public one gets .pub behind the name.")],
) -> None:
    """Make a pair of keys (Ed25519, as PEM): the private one signs bundles, servers trust the public one."""
    try:
        key = write_new_key(file)
    except KeyFileError as error:
        raise _refused(error) from error
    print_line(f"{file}: private key {key.id}; keep it secret")
    print_line(f"{public_file(file)}: its public key, for `innerloop serve --require-signed`")


@app.command()
def sign(
    bundles: Bundles,
    key: Annotated[Path, typer.Option(help="File of the private key, as `innerloop signing-key` makes it.")],
) -> None:
    """Check that bundles are complete, and sign them. A signature that is there already is replaced."""
    try:
        signing = read_signing_key(key)
    except KeyFileError as error:
        raise _refused(error) from error
    _for_each(bundles, lambda path: sign_bundle(path, signing), f"signed by {signing.id}")


@app.command()
def verify(
    bundles: Bundles,
    keys: Annotated[Path, typer.Option(help="PEM file of public keys, one or more.")],
) -> None:
    """Check that one of some keys has signed bundles, and that nothing was changed or is missing since."""
    try:
        trusted = read_trusted_keys(keys)
    except KeyFileError as error:
        raise _refused(error) from error

    def check(path: Path) -> Manifest:
        manifest = read_manifest(path, trusted)
        read_files(path, manifest)
        return manifest

    _for_each(bundles, check, "signed and complete")


def _for_each(bundles: list[Path], handle: Callable[[Path], Manifest], outcome: str) -> None:
    """Handle one bundle after the other; one that fails does not keep the others from being handled."""
    failed = False
    for path in bundles:
        try:
            manifest = handle(path.resolve())
        except (BundleError, OSError) as error:
            failed = True
            reason = error.strerror if isinstance(error, OSError) else str(error)
            print_error(f"innerloop: {path}: {(reason or '').removeprefix(f'{path.resolve().name}: ')}")
        else:
            print_line(f"{path}: version {manifest.version}, {outcome}")
    if failed:
        raise typer.Exit(1)


def _refused(error: KeyFileError) -> typer.Exit:
    print_error(f"innerloop: {error}")
    return typer.Exit(1)
