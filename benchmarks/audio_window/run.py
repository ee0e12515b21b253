"""Which part of a recording should a model hear? Rules that `innerloop_learner.media.audio` was chosen among.

    python benchmarks/audio_window/run.py [--data DIGITS.zip] [--takes 20] [--episodes 600]

Cuts the spoken digits 0 to 4 (the others stay unseen for other benchmarks) by each rule, as they are and with up to a
second of faint noise before and behind each, and measures class means, 5 ways, support sets and queries by different
speakers. Features are log-mel spectrograms of 1 s and, where it is installed, the catalogue's speech-embedding, of as
much as it takes.
Writes results.json: mean accuracies in per cent, with half widths of 95% confidence intervals over episodes.
"""

import argparse
import io
import json
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray

from innerloop_learner.encoders import FrozenEncoder
from innerloop_learner.encoders.session import Computing
from innerloop_learner.media import fit_audio
from innerloop_learner.spec import InputSpec
from innerloop_trainer.data import ClassExamples, EpisodeShape
from innerloop_trainer.data.class_digests import digest_arrays
from innerloop_trainer.data.example_set import ExampleSet
from innerloop_trainer.encoders import encoders, open_files
from innerloop_trainer.encoders.spectrogram import spectrogram_encoder
from innerloop_trainer.evaluation import confidence_interval

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from machine import describe_machine

RESULTS = Path(__file__).with_name("results.json")
DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "spoken_digits" / "spoken_digits.zip"
RATE = 16_000
CHOOSING = "01234"
Waveform = NDArray[np.float32]


def first(waveform: Waveform, samples: int) -> Waveform:
    """The beginning of the recording."""
    return np.concatenate([waveform[:samples], np.zeros(max(0, samples - len(waveform)), np.float32)])


def middle(waveform: Waveform, samples: int) -> Waveform:
    """The middle of the recording."""
    missing = max(0, samples - len(waveform))
    padded = np.pad(waveform, (missing // 2, missing - missing // 2))
    return padded[(len(padded) - samples) // 2 :][:samples]


def trimmed(decibels: float) -> Callable[[Waveform, int], Waveform]:
    """The middle of what is left when both ends are cut off up to a level below the loudest 10 ms."""

    def rule(waveform: Waveform, samples: int) -> Waveform:
        levels = np.add.reduceat(np.square(waveform, dtype=np.float64), np.arange(0, len(waveform), RATE // 100))
        (loud,) = np.nonzero(levels > levels.max() * 10 ** (-decibels / 10))
        return middle(waveform[loud[0] * RATE // 100 : (loud[-1] + 1) * RATE // 100], samples)

    return rule


def loudest(waveform: Waveform, samples: int) -> Waveform:
    """The part whose middle is loudest."""
    return fit_audio(waveform, RATE, RATE, samples)


RULES: Mapping[str, Callable[[Waveform, int], Waveform]] = {
    "beginning": first,
    "middle": middle,
    "middle, ends trimmed at -40 dB": trimmed(40),
    "middle, ends trimmed at -25 dB": trimmed(25),
    "loudest middle": loudest,
}


def main() -> None:
    """Measure every rule, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--takes", type=int, default=20, help="recordings of each digit by each speaker")
    parser.add_argument("--episodes", type=int, default=600)
    arguments = parser.parse_args()
    classes, speakers, clips = read(arguments.data, arguments.takes)
    features = {"log-mel": spectrogram_encoder(RATE, RATE, Computing())}
    if encoders["speech-embedding"]().at_hand:
        features["speech-embedding"] = open_files(encoders["speech-embedding"]().read(), Computing())
    results: dict[str, Any] = {}
    for kind, waveforms in {"as they are": clips, "with pauses": [*with_pauses(clips)]}.items():
        for name, rule in RULES.items():
            for encoder_name, encoder in features.items():
                (samples,) = encoder.spec.shape
                windows = np.stack([rule(waveform, samples) for waveform in waveforms])
                found = measure(classes, speakers, encode(encoder, windows), arguments.episodes)
                results.setdefault(kind, {}).setdefault(name, {})[encoder_name] = found
                print(kind, name, encoder_name, found, flush=True)
    content = {
        "machine": describe_machine(),
        "takes": arguments.takes,
        "episodes": arguments.episodes,
        "results": results,
    }
    RESULTS.write_text(json.dumps(content, indent=2) + "\n")


def read(data: Path, takes: int) -> tuple[list[str], list[str], list[Waveform]]:
    """Class, speaker and waveform of recordings of the digits for choosing, sorted by class."""
    with zipfile.ZipFile(data) as archive:
        paths = sorted(PurePosixPath(name) for name in archive.namelist() if name.endswith(".wav"))
        chosen = [path for path in paths if path.parent.name in CHOOSING and int(path.stem.split("_")[1]) < takes]
        decoded = [soundfile.read(io.BytesIO(archive.read(str(path))), dtype="float32") for path in chosen]
    clips = [soxr.resample(waveform, rate, RATE) for waveform, rate in decoded]
    return [path.parent.name for path in chosen], [path.stem.split("_")[0] for path in chosen], clips


def with_pauses(clips: Sequence[Waveform]) -> Sequence[Waveform]:
    """Each recording with up to a second before and behind it, in noise of 45 to 65 dB below its largest sample."""
    random = np.random.default_rng(0)
    longer = []
    for clip in clips:
        padded = np.pad(clip, random.integers(0, RATE, 2))
        level = np.abs(clip).max() * 10 ** (-random.uniform(45, 65) / 20)
        longer.append((padded + level * random.standard_normal(len(padded))).astype(np.float32))
    return longer


def encode(encoder: FrozenEncoder, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features of length 1 [N, F], their mean over all recordings taken away first."""
    values = encoder.encode(windows).reshape(len(windows), -1)
    centred = values - values.mean(0)
    return centred / np.linalg.norm(centred, axis=1, keepdims=True)


def measure(
    classes: Sequence[str], speakers: Sequence[str], features: NDArray[np.float32], episodes: int
) -> dict[str, list[float]]:
    """Accuracy and interval of class means, by the number of shots."""
    names, counts = np.unique(classes, return_counts=True)
    numbers = np.unique(speakers, return_inverse=True)[1].astype(np.int64)
    data = ExampleSet(tuple(names.tolist()), counts, features, digest_arrays(counts, features), numbers)
    split = ClassExamples("digits", data, InputSpec(features.shape[1:]), torch.device("cpu"))
    found = {}
    for shots in (1, 5):
        drawn = split.sample(EpisodeShape(len(names), shots, 15), episodes, torch.Generator().manual_seed(0))
        member = torch.nn.functional.one_hot(drawn.support.y).float()  # [T, S, W]
        means = member.transpose(1, 2) @ drawn.support.x / shots
        right = (torch.cdist(drawn.query.x, means).argmin(-1) == drawn.targets).float().mean(1)
        found[f"{shots} shots"] = [round(100 * right.mean().item(), 1), round(100 * confidence_interval(right), 1)]
    return found


if __name__ == "__main__":
    main()
