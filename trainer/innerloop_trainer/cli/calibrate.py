"""`innerloop calibrate`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from innerloop_learner.bundle import load_bundle, save_bundle
from innerloop_trainer.calibration import CalibrationError, calibrate_bundle
from innerloop_trainer.calibration.fit import FEWEST_EPISODES, USUAL_EPISODES
from innerloop_trainer.cli.arguments import BundleArgument, DataOption, DeviceOption, SignKeyOption
from innerloop_trainer.cli.display import print_calibration
from innerloop_trainer.cli.mistakes import mistakes_as_messages
from innerloop_trainer.cli.output import console
from innerloop_trainer.cli.progress import progress_on_stderr
from innerloop_trainer.cli.signing import NOT_SIGNED_ANY_MORE, is_signed, read_sign_key
from innerloop_trainer.devices import choose_device
from innerloop_trainer.runs.folder import find_bundle


def calibrate(
    bundle: BundleArgument,
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Bundle to write; its folder's name becomes the model's name.")],
    size: Annotated[
        list[str] | None,
        typer.Option(
            "--size",
            help="Ways and shots of tasks, such as 5x1; for regression the number of examples. May be repeated; the "
            "sizes of training and usual ones if not given.",
        ),
    ] = None,
    episodes: Annotated[
        int, typer.Option(min=FEWEST_EPISODES, help="Tasks of each size; more make the figures more exact.")
    ] = USUAL_EPISODES,
    seed: Annotated[int, typer.Option(help="Seed of the episodes.")] = 0,
    device: DeviceOption = "auto",
    sign_key: SignKeyOption = None,
) -> None:
    """Write a bundle whose answers say how sure they are, measured on classes that it was not trained on."""
    with mistakes_as_messages(), progress_on_stderr():
        source = find_bundle(bundle)
        if out.resolve() == source.resolve():
            raise CalibrationError(f"{out} is the bundle itself; name another folder, which can take its place later")
        key, signed, target = read_sign_key(sign_key), is_signed(out), choose_device(device)
        loaded = load_bundle(source, target)
        sizes = [_size(text, loaded.manifest.learner.task_kind) for text in size or ()]
        manifest = calibrate_bundle(loaded, data, target, sizes=sizes or None, episodes=episodes, seed=seed)
        manifest = save_bundle(out, replace(manifest, name=out.resolve().name), loaded.params, loaded.files, key)
    print_calibration(manifest)
    console.print(f"{out}: version {manifest.version}", soft_wrap=True)
    if signed and key is None:
        console.print(NOT_SIGNED_ANY_MORE, style="yellow", soft_wrap=True)


def _size(text: str, task_kind: str) -> tuple[int, int]:
    """Ways and shots of a text such as 5x1; for regression, zero and the number of examples."""
    form, least = ("N", 1) if task_kind == "regression" else ("WAYSxSHOTS, such as 5x1", 2)
    ways, _, shots = f"0x{text}".partition("x") if task_kind == "regression" else text.partition("x")
    if not (ways.isdecimal() and shots.isdecimal() and int(shots) >= 1 and (least == 1 or int(ways) >= least)):
        raise CalibrationError(f"a size of tasks is written {form}, not {text!r}")
    return int(ways), int(shots)
