"""`audio:PATH?key=value&...`: a user's own recordings, in one folder per class.

PATH is a folder, or a zip or tar archive of one, in the layouts that `images:PATH` reads. Each recording becomes a
waveform of one length, around its loudest part (see `innerloop_learner.media.audio`). `AudioOptions` lists the options.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from innerloop_learner.encoders import EncoderSpec
from innerloop_learner.media import (
    AudioSupportError,
    audio_extensions,
    audio_format_names,
    decode_audio,
    is_silent,
    require_audio,
)
from innerloop_learner.media.audio import RATES
from innerloop_learner.spec import InputSpec
from innerloop_trainer.data.cache import cached
from innerloop_trainer.data.class_examples import source_of_classes
from innerloop_trainer.data.class_folders import Classes, FileKind, find_classes
from innerloop_trainer.data.class_split import SplitOptions, describe_split
from innerloop_trainer.data.decode import Decoder, decode_classes
from innerloop_trainer.data.example_set import ExampleSet
from innerloop_trainer.data.file_tree import FileTree, open_tree, title_of
from innerloop_trainer.data.found_splits import split_found
from innerloop_trainer.data.left_out import LeaveOutOptions, counted, leave_out_small
from innerloop_trainer.data.options import FLAG, Kind, existing_path, option, read_options, write_options
from innerloop_trainer.data.source import DataError, DataSource, SourceLoader, SourceRequest, sources
from innerloop_trainer.data.speakers import SpeakerOptions, find_speakers, keep_apart

EXAMPLE = "audio:~/recordings (a folder, or a zip or tar archive, with one folder of recordings per class)"

RECORDINGS = FileKind("audio", "recordings", audio_extensions, audio_format_names)

MOST_SECONDS = 60


def _between(form: str, least: float, most: float, kind: type[int] | type[float]) -> Kind[float]:
    def read(text: str) -> float:
        value = kind(text)
        if not least <= value <= most:
            raise ValueError(text)
        return value

    return Kind(f"{form} from {least:,} to {most:,}", read, "{:.10g}".format)


@dataclass(frozen=True)
class AudioOptions(SpeakerOptions, SplitOptions, LeaveOutOptions):
    """Options of the source of recordings."""

    rate: float = option(16_000, _between("a whole number", *RATES, int), "Sampling rate to resample to, in Hz.")
    seconds: float = option(
        1.0,
        _between("a number", 0.01, MOST_SECONDS, float),
        "Length in seconds that is kept of each recording, around its loudest part, with silence around shorter ones.",
    )
    nested: bool = option(False, FLAG, "Folders of one name below different folders are different classes.")


class Audio(SourceLoader):
    """The source of a user's own recordings."""

    summary = "one's own recordings (WAV, FLAC, OGG): a folder per class, or a zip or tar archive of such folders"
    example = "audio:~/recordings?speakers=prefix"
    options = AudioOptions

    def options_for(self, encoder: EncoderSpec) -> Mapping[str, str]:
        """As in `SourceLoader`."""
        if encoder.input != "audio":
            return {}
        return {"rate": str(encoder.rate), "seconds": repr(encoder.shape[0] / encoder.rate)}

    def load(self, request: SourceRequest) -> DataSource:
        """As in `SourceLoader`."""
        options = read_options(request, AudioOptions)
        if options.speakers == "none" and "test_speakers" in request.options:
            raise DataError("audio: test_speakers has no effect without speakers; write ?speakers=prefix or folder too")
        path = existing_path(request, EXAMPLE)
        _require_libraries()
        tree = open_tree(path)
        layout = find_classes(
            RECORDINGS,
            tree,
            nested=options.nested,
            skip_empty=options.min_examples > 0,
            speakers=options.speakers == "folder",
        )
        files = {name: files for classes in layout.splits.values() for name, files in classes.items()}
        speakers = _speakers(tree, files, options)
        decoded = _decode(request, tree, files, speakers, options)
        data, small = leave_out_small(request.name, decoded, options)
        silent = data.count(np.array([is_silent(each) for part in data.in_parts() for each in part], bool))
        _reject_silent(tree, data, silent)
        named, how = split_found(request, options, layout.splits, data)
        splits = {split: data.select(names) for split, names in named.items()}
        described, apart = "", list[str]()
        if options.speakers != "none":
            kept = keep_apart(splits, sorted({*speakers.values()}), options, options.seed)
            splits, described, apart = {**kept.splits}, f"; {kept.described}", [*kept.notices]
        return source_of_classes(
            f"audio:{title_of(path)}",
            f"{len(data.examples):,} recordings of {len(data.names)} classes, {options.seconds:g} s of each at "
            f"{options.rate:,} Hz, {describe_split(named, how)}{described}",
            InputSpec((_samples(options),)),
            request.device,
            train=splits["train"],
            validation=splits["validation"],
            test=splits["test"],
            options=write_options(options),
            rate=int(options.rate),
            notices=[*layout.notices, *_notices(files, decoded, silent), *small, *apart],
        )


def _require_libraries() -> None:
    try:
        require_audio()
    except AudioSupportError as error:
        raise DataError(f"audio: {error}") from error


def _samples(options: AudioOptions) -> int:
    return round(options.rate * options.seconds)


def _speakers(tree: FileTree, classes: Classes, options: AudioOptions) -> dict[PurePosixPath, str]:
    """The name of the speaker of each file; empty where speakers are not kept apart."""
    if options.speakers == "none":
        return {}
    return find_speakers(tree, [path for files in classes.values() for path in files], options.speakers)


def _decode(
    request: SourceRequest,
    tree: FileTree,
    classes: Classes,
    speakers: Mapping[PurePosixPath, str],
    options: AudioOptions,
) -> ExampleSet:
    import soundfile
    import soxr

    rate, samples = int(options.rate), _samples(options)
    numbers = {name: number for number, name in enumerate(sorted({*speakers.values()}))}

    def decode() -> ExampleSet:
        return decode_classes(
            tree,
            classes,
            Decoder(
                lambda content: decode_audio(content, rate, samples),
                (samples,),
                np.float32,
                f"recordings of {samples:,} samples",
                "choose a lower ?rate= or fewer ?seconds=",
            ),
            skip_broken=options.skip_broken,
            advice="replace or remove them, or leave them out with ?skip_broken=true",
            speakers={path: numbers[name] for path, name in speakers.items()} or None,
            scratch=request.scratch,
        )

    if request.scratch is not None:
        return decode()

    told = {"rate": rate, "samples": samples, "skip_broken": options.skip_broken, "speakers": options.speakers}
    libraries = [soundfile.__version__, soundfile.__libsndfile_version__, soxr.__version__]
    chosen = {name: list(map(str, files)) for name, files in classes.items()}
    return cached("audio", {"files": tree.identity(), "classes": chosen, "libraries": libraries, **told}, decode)


def _reject_silent(tree: FileTree, data: ExampleSet, silent: Mapping[str, int]) -> None:
    empty = [name for name, count in zip(data.names, data.counts, strict=True) if silent[name] == count]
    if empty:
        raise DataError(
            f"audio: {tree.root}: every recording of {', '.join(map(repr, empty[:10]))} is silent; listen to the "
            f"files, and replace or remove them"
        )


def _notices(files: Classes, decoded: ExampleSet, silent: Mapping[str, int]) -> Iterator[str]:
    broken = sum(map(len, files.values())) - len(decoded.examples)
    if broken:
        yield f"{counted(broken, 'broken recording')} left out"
    if any(silent.values()):
        total, most = sum(silent.values()), max(silent, key=lambda name: silent[name])
        yield f"{counted(total, 'silent recording')}, most of them in {most}"


sources.register("audio")(Audio())
