import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop_learner.media import audio, audio_formats, decode_audio
from innerloop_trainer.data import ClassExamples, DataError, DataSource, EpisodeShape, load_source
from innerloop_trainer.data.class_digests import ClassDigest
from innerloop_trainer.data.example_set import ExampleSet
from innerloop_trainer.data.speakers import SpeakerOptions, keep_apart

RATE = 4_000
SIX = ("eight", "five", "nine", "one", "seven", "six")
FOUR = ("ann", "bob", "cid", "dee")
OPTIONS = f"rate={RATE}&seconds=0.1"


def recording(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, 300)


def write(path: Path, seed: int = 0, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, recording(seed), rate, subtype="PCM_16")
    return path


def recordings(root: Path, classes: Sequence[str] = SIX, speakers: Sequence[str] = FOUR, takes: int = 2) -> Path:
    """Files `CLASS/SPEAKER_TAKE.wav`."""
    names = [f"{name}/{speaker}_{take}.wav" for name in classes for speaker in speakers for take in range(takes)]
    for seed, name in enumerate(names):
        write(root / name, seed)
    return root


def splits(source: DataSource) -> dict[str, ClassExamples]:
    found = {"train": source.train, "validation": source.validation, "test": source.test}
    return {name: split for name, split in found.items() if isinstance(split, ClassExamples)}


def names(source: DataSource) -> set[str]:
    return {name for split in splits(source).values() for name in split.names}


def test_class_folders_and_their_archive_give_waveforms_of_one_length(
    tmp_path: Path, zipped: Callable[[Path], Path]
) -> None:
    root = recordings(tmp_path / "digits")
    folder, archive = (load_source(f"audio:{path}?{OPTIONS}") for path in (root, zipped(root)))
    assert (folder.name, folder.input.shape, folder.input.dtype, folder.rate) == (
        "audio:digits",
        (400,),
        "float32",
        4_000,
    )
    assert folder.description.startswith("48 recordings of 6 classes, 0.1 s of each at 4,000 Hz, split by class with")
    assert names(folder) == names(archive) == set(SIX)
    shape = EpisodeShape(1, 2, 2)
    a, b = (source.train.sample(shape, 2, torch.Generator().manual_seed(0)) for source in (folder, archive))
    assert torch.equal(a.support.x, b.support.x)
    assert (folder.notices, folder.options["rate"], folder.options["seconds"]) == ((), "4000", "0.1")


def test_an_example_is_what_a_server_decodes_of_the_same_file(tmp_path: Path) -> None:
    root = recordings(tmp_path / "digits", takes=1)
    write(root / "one" / "ann_0.flac", 99, rate=11_025)
    (root / "one" / "ann_0.wav").unlink()
    source = load_source(f"audio:{root}?{OPTIONS}")
    (split,) = (split for split in splits(source).values() if "one" in split.names)
    drawn = split.without([name for name in split.names if name != "one"])
    heard = drawn.sample(EpisodeShape(1, 3, 1), 1, torch.Generator().manual_seed(0))
    found = {tuple(x.tolist()) for x in torch.cat([heard.support.x[0], heard.query.x[0]])}
    files = [path.read_bytes() for path in (root / "one").iterdir()]
    assert found == {tuple(decode_audio(content, RATE, 400).tolist()) for content in files}


@pytest.mark.parametrize("how", ["prefix", "folder"])
def test_speakers_are_kept_apart_between_splits_and_within_episodes(tmp_path: Path, how: str) -> None:
    root = recordings(tmp_path / "digits")
    if how == "folder":
        for path in [*root.glob("*/*.wav")]:
            speaker, take = path.name.split("_")
            (path.parent / speaker).mkdir(exist_ok=True)
            path.rename(path.parent / speaker / take)
    source = load_source(f"audio:{root}?{OPTIONS}&speakers={how}")
    assert names(source) == set(SIX)
    assert "4 speakers, of which " in source.description
    assert source.notices == ("24 recordings of test classes by speakers of others, or the reverse, left out",)
    speaker_of = {
        tuple(decode_audio(path.read_bytes(), RATE, 400).tolist()): speaker
        for path in root.rglob("*.wav")
        for speaker in FOUR
        if speaker in str(path.relative_to(root))
    }
    heard: dict[str, set[str]] = {}
    for name, split in splits(source).items():
        raw = split.sample_raw(EpisodeShape(1, 1, 1), 20, torch.Generator().manual_seed(0))
        support, query = ([speaker_of[tuple(x[0].tolist())] for x in side] for side in (raw.support, raw.query))
        assert all(a != b for a, b in zip(support, query, strict=True))
        heard[name] = {*support, *query}
    assert heard["train"] == heard["validation"]
    assert not heard["train"] & heard["test"]
    assert heard["train"] | heard["test"] == set(FOUR)


def example_set(prefix: str, classes: Sequence[Sequence[int]]) -> ExampleSet:
    """Classes of examples that say who speaks."""
    speakers = np.array([speaker for each in classes for speaker in each], np.int64)
    counts = np.array([len(each) for each in classes], np.int64)
    named = tuple(f"{prefix}{row}" for row in range(len(classes)))
    digests = tuple(ClassDigest((name,), name) for name in named)
    return ExampleSet(named, counts, speakers[:, None].astype(np.float32), digests, speakers)


CLASSES = st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=12), min_size=1, max_size=4)


@settings(max_examples=50, deadline=None)
@given(CLASSES, CLASSES, CLASSES, st.integers(0, 99), st.floats(0.1, 0.9))
def test_no_speaker_of_a_test_class_speaks_in_another_or_what_is_missing_is_said(
    train: list[list[int]], validation: list[list[int]], test: list[list[int]], seed: int, fraction: float
) -> None:
    given_splits: Mapping[str, ExampleSet] = {
        "train": example_set("a", train),
        "validation": example_set("b", validation),
        "test": example_set("c", test),
    }
    options = SpeakerOptions("prefix", fraction)
    try:
        kept = keep_apart(given_splits, [f"speaker {number}" for number in range(8)], options, seed).splits
    except DataError as refusal:
        said = str(refusal)
    else:
        said = ""
    if said:
        assert "?test_speakers=0" in said
        return
    heard = {name: set(data.examples[:, 0].tolist()) for name, data in kept.items()}
    assert not heard["test"] & (heard["train"] | heard["validation"])
    for name, data in kept.items():
        assert data.names == given_splits[name].names
        assert data.counts.min() > 0
        assert data.speakers is not None
        assert data.examples[:, 0].tolist() == data.speakers.tolist()
        assert data.counts.sum() == len(data.examples)


def test_few_speakers_are_shared_by_all_classes_only_when_told(tmp_path: Path) -> None:
    root = recordings(tmp_path / "digits", speakers=("ann", "bob"))
    with pytest.raises(DataError, match=r"2 speakers can't be divided into 2 for test .*\?test_speakers=0"):
        load_source(f"audio:{root}?{OPTIONS}&speakers=prefix")
    source = load_source(f"audio:{root}?{OPTIONS}&speakers=prefix&test_speakers=0")
    assert source.description.endswith("; 2 speakers; support sets and queries by different speakers")
    source.test.check(EpisodeShape(1, 2, 2))
    with pytest.raises(DataError, match="by 2 speakers, but 1 for the support set and 3 for queries"):
        source.test.check(EpisodeShape(1, 1, 3))


def test_files_that_name_no_speaker_are_named_all_at_once(tmp_path: Path) -> None:
    root = recordings(tmp_path / "digits")
    for name in ("one/x.wav", "two/_1.wav"):
        write(root / name)
    with pytest.raises(DataError, match=r"one/x\.wav begins with no speaker and _; .*two/_1\.wav begins .*rename them"):
        load_source(f"audio:{root}?{OPTIONS}&speakers=prefix")
    with pytest.raises(DataError, match=r"lies in no folder of a speaker in a class folder"):
        load_source(f"audio:{root}?{OPTIONS}&speakers=folder")


def test_broken_files_are_named_all_at_once_or_left_out(tmp_path: Path) -> None:
    root = recordings(tmp_path / "digits")
    (root / "one" / "ann_0.wav").write_bytes(b"")
    (root / "six" / "bob_1.wav").write_bytes((root / "six" / "bob_1.wav").read_bytes()[:100])
    said = r"one/ann_0\.wav is empty; six/bob_1\.wav is damaged: it ends before its last sample; replace .*skip_broken"
    with pytest.raises(DataError, match=said):
        load_source(f"audio:{root}?{OPTIONS}")
    for _ in range(2):  # decoded, and from the cache
        source = load_source(f"audio:{root}?{OPTIONS}&skip_broken=true&speakers=prefix&test_speakers=0")
        assert source.notices == ("2 broken recordings left out",)
        assert "46 recordings" in source.description


def test_silent_recordings_are_counted_and_a_silent_class_is_refused(tmp_path: Path) -> None:
    root = recordings(tmp_path / "digits")
    soundfile.write(root / "one" / "ann_0.wav", np.zeros(300), RATE)
    soundfile.write(root / "one" / "ann_1.wav", np.full(300, 0.5), RATE)
    assert load_source(f"audio:{root}?{OPTIONS}").notices == ("2 silent recordings, most of them in one",)
    for path in (root / "six").iterdir():
        soundfile.write(path, np.zeros(300), RATE)
    with pytest.raises(DataError, match="every recording of 'six' is silent; listen"):
        load_source(f"audio:{root}?{OPTIONS}")


def test_other_files_are_said_and_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    root = recordings(tmp_path / "digits")
    (root / "one" / "song.mp3").write_bytes(b"")
    assert load_source(f"audio:{root}?{OPTIONS}").notices == ("1 file (1 .mp3) of no format that is read, left out",)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"audio: .*empty has no recordings \(WAV, FLAC, OGG\)"):
        load_source(f"audio:{tmp_path / 'empty'}")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("rate=1", "a whole number from 1,000 to 384,000"),
        ("rate=8e3", "a whole number from 1,000 to 384,000"),
        ("seconds=0", "a number from 0.01 to 60"),
        ("seconds=nan", "a number from 0.01 to 60"),
        ("speakers=suffix", "one of: none, folder, prefix"),
        ("test_speakers=1", "a number from 0 to less than 1"),
    ],
)
def test_options_that_are_not_understood_say_what_to_write(tmp_path: Path, option: str, said: str) -> None:
    with pytest.raises(DataError, match=f"{option} is not understood; write {said}"):
        load_source(f"audio:{tmp_path}?{option}")


def test_test_speakers_without_speakers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="test_speakers has no effect without speakers; write"):
        load_source(f"audio:{tmp_path}?test_speakers=0.5")


def test_a_missing_library_is_said_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "reads_audio", lambda: False)
    with pytest.raises(DataError, match=r'audio: sound needs soundfile and soxr; pip install "innerloop\[speech\]"'):
        load_source(f"audio:{tmp_path}")


def test_a_file_of_every_extension_is_read(tmp_path: Path) -> None:
    root = recordings(tmp_path / "digits")
    for form, each in audio_formats.AUDIO_FORMATS.items():
        for extension in each.extensions:
            buffer = io.BytesIO()
            opus = {"subtype": "OPUS"} if extension == ".opus" else {}
            soundfile.write(buffer, recording(0), 8_000, format=form, **opus)
            (root / "one" / f"other{extension.upper()}").write_bytes(buffer.getvalue())
    assert "54 recordings of 6 classes" in load_source(f"audio:{root}?{OPTIONS}").description
