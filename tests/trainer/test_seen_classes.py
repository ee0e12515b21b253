"""What a model was trained on is known again, however it is called and split, and is neither tested on nor swapped."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shell import innerloop, mistake

from innerloop_learner.manifest import digest_of, read_manifest
from innerloop_trainer.data import load_source
from innerloop_trainer.data.class_digests import digest_class, digest_classes
from innerloop_trainer.data.images import ImageOptions
from innerloop_trainer.data.options import write_options

NAMES = [f"part-{letter}" for letter in "abcdefghijkl"]
OPTIONS = "size=8&val=0.25&test=0.33"
QUICK = [
    *("--ways", 2, "--queries", 2, "--iterations", 1, "--meta-batch", 1, "--validation-episodes", 2),
    *("--test-episodes", 2, "--backbone-set", "width=4", "--device", "cpu"),
]
TRAIN = [*QUICK, "--no-report"]


@pytest.fixture(autouse=True, scope="module")
def cache_home(tmp_path_factory: pytest.TempPathFactory):
    """A cache folder of these tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def draw(file: Path, seed: int) -> None:
    """A picture that no other seed gives."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8), dtype=np.uint8)).save(file)


def draw_parts(folder: Path) -> Path:
    for position, name in enumerate(NAMES):
        for index in range(4):
            draw(folder / name / f"{index}.png", 10 * position + index)
    return folder


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of images."""
    return draw_parts(tmp_path_factory.mktemp("data") / "parts")


@pytest.fixture(scope="module")
def run(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on them."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    answer = innerloop("train", "protonet", "--data", f"images:{parts}?{OPTIONS}", *TRAIN, "--out", folder)
    assert answer.status == 0, answer
    return folder


def split(parts: Path, options: str, *splits: str) -> set[str]:
    source = load_source(f"images:{parts}?{options}")
    return {name for split in splits for name in getattr(source, split).names}


def evaluated(bundle: Path, data: str, file: Path, *options: object) -> tuple[dict, str]:
    answer = innerloop("evaluate", bundle, "--data", data, "--queries", 2, "--episodes", 2, "--json", file, *options)
    assert answer.status == 0, answer
    return json.loads(file.read_text()), answer.output


def test_a_bundle_says_what_it_was_trained_on(run: Path, parts: Path) -> None:
    provenance = read_manifest(run / "bundle").provenance
    assert provenance.options == write_options(ImageOptions(size=(8, 8), val=0.25, test=0.33))
    assert {"val": "0.25", "seed": "0"}.items() <= provenance.options.items()
    source = load_source(f"images:{parts}?{OPTIONS}")
    for name, sampler in (("train", source.train), ("validation", source.validation)):
        digests = {known for digest in sampler.digests.values() for known in digest.known_by}
        assert set(provenance.classes[name].split()) == digests
        assert len(digests) == 2 * len(sampler.names)
        assert len(provenance.classes[name]) < 20 * len(sampler.names), "bytes of a manifest"


def test_classes_that_were_trained_on_are_left_out_with_a_count(run: Path, parts: Path, tmp_path: Path) -> None:
    seen, other = split(parts, OPTIONS, "train", "validation"), f"{OPTIONS}&seed=1"
    expected = split(parts, other, "test") & seen
    assert expected
    figures, said = evaluated(run, f"images:{parts}?{other}", tmp_path / "other.json")
    assert set(figures["left_out"]) == expected
    assert f"left out: {len(expected)} class" in said
    assert figures["classes"].startswith(f"{4 - len(expected)} classes, ")
    assert figures["options"]["seed"] == "1"
    own, said = evaluated(run, f"images:{parts}?{OPTIONS}", tmp_path / "own.json")
    assert (own["left_out"], own["classes"][:9]) == ([], "4 classes")
    assert "left out" not in said
    assert own["classes"] == read_manifest(run / "bundle").metrics[1].classes
    trained, _ = evaluated(run, f"images:{parts}?{OPTIONS}", tmp_path / "train.json", "--split", "train")
    assert trained["left_out"] == [], "who asks for the training classes gets them"


def test_a_class_is_known_under_another_name_and_after_it_has_grown(run: Path, parts: Path, tmp_path: Path) -> None:
    chosen = min(split(parts, OPTIONS, "train"))
    for part, names in (("train", ["x"]), ("val", ["y"]), ("test", ["renamed", "new-1", "new-2"])):
        for position, name in enumerate(names):
            for index in range(4):
                draw(tmp_path / "other" / part / name / f"{index}.png", 1000 + 100 * len(part) + 10 * position + index)
    shutil.rmtree(tmp_path / "other" / "test" / "renamed")
    shutil.copytree(parts / chosen, tmp_path / "other" / "test" / "renamed")
    draw(tmp_path / "other" / "test" / "renamed" / "one-more.png", 5)
    figures, _ = evaluated(run, f"images:{tmp_path / 'other'}?size=8", tmp_path / "figures.json")
    assert figures["left_out"] == ["renamed"]


def test_too_few_classes_that_are_new_are_refused(run: Path, parts: Path, tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        names = sorted(split(parts, OPTIONS, "train"))[:3]
        for name in names:
            shutil.copytree(parts / name, tmp_path / "seen" / part / f"{part}-{name}")
    message = mistake("evaluate", run, "--data", f"images:{tmp_path / 'seen'}?size=8", "--queries", 2)
    assert "of the 3 classes of the test split, 3 were trained on or chosen by, and 0 are too few for 2 ways" in message


def test_a_bundle_of_before_classes_were_recorded_is_measured_and_that_is_said(
    run: Path, parts: Path, tmp_path: Path
) -> None:
    shutil.copytree(run / "bundle", tmp_path / "old")
    data = json.loads((tmp_path / "old" / "manifest.json").read_text())
    for name in ("classes", "options"):
        del data["provenance"][name]
    for metric in data["metrics"]:
        del metric["classes"]
    data["digest"] = digest_of(data)
    (tmp_path / "old" / "manifest.json").write_text(json.dumps(data))
    figures, said = evaluated(tmp_path / "old", f"images:{parts}?{OPTIONS}&seed=1", tmp_path / "figures.json")
    assert figures["left_out"] == []
    assert "does not say what it was trained on" in said


def add_an_image(parts: Path) -> None:
    draw(parts / "part-c" / "more.png", 7)


def change_an_image(parts: Path) -> None:
    draw(parts / "part-c" / "0.png", 7)


def add_a_class(parts: Path) -> None:
    shutil.copytree(parts / "part-c", parts / "part-z")


def remove_classes(parts: Path) -> None:
    for name in NAMES[:5]:
        shutil.rmtree(parts / name)


@pytest.mark.parametrize(
    ("change", "differences"),
    [
        (add_an_image, ["class 'part-c' has other examples"]),
        (change_an_image, ["class 'part-c' has other examples"]),
        (add_a_class, ["class 'part-z' is new"]),
        (remove_classes, ["class 'part-a' is missing", "more classes differ"]),
    ],
)
def test_a_run_is_not_resumed_on_other_data(
    change: Callable[[Path], None], differences: Sequence[str], tmp_path: Path
) -> None:
    parts = draw_parts(tmp_path / "parts")
    train = ["train", "protonet", "--data", f"images:{parts}?{OPTIONS}", *TRAIN, "--out", tmp_path / "run"]
    assert innerloop(*train).status == 0
    shutil.copytree(parts, tmp_path / "copy")
    change(parts)
    message = mistake(*train, "--resume")
    assert f"{tmp_path}/run holds a run on other data: " in message
    assert all(difference in message for difference in differences)
    shutil.rmtree(parts)
    shutil.copytree(tmp_path / "copy", parts)
    assert innerloop(*train, "--resume").status == 0


def test_classes_of_given_parameters_are_not_tested_on_either(run: Path, parts: Path, tmp_path: Path) -> None:
    other = f"{OPTIONS}&seed=1"
    expected = split(parts, other, "test") & split(parts, OPTIONS, "train", "validation")
    options = ["--data", f"images:{parts}?{other}", *TRAIN, "--init", run, "--out", tmp_path / "second"]
    answer = innerloop("train", "protonet", *options)
    assert answer.status == 0, answer
    assert f"left out: {len(expected)} class" in answer.output
    manifest, first = read_manifest(tmp_path / "second" / "bundle"), read_manifest(run / "bundle")
    assert manifest.metrics[1].classes.startswith(f"{4 - len(expected)} classes, ")
    assert set(manifest.provenance.classes["train"].split()) > set(first.provenance.classes["train"].split())


def test_classes_that_share_an_example_are_not_taken_for_one_and_copies_are() -> None:
    """Whatever its digest, a picture that stands for a missing one, or a text such as "help", makes no class known."""
    for missing in (bytes(32), b"\xff" * 32):
        cat, dog = ([bytes([kind, number]) * 16 for number in range(1, 5)] for kind in (1, 2))
        copy = [*cat, b"\x00\x09" * 16]
        classes = [[missing, *cat], [missing, *dog], [missing, *copy]]
        counts = np.array(list(map(len, classes)))
        digests = digest_classes(counts, [example for each in classes for example in each])
        known = [set(digest.known_by) for digest in digests]
        assert not known[1] & (known[0] | known[2])
        assert known[0] & known[2]


def test_a_digest_knows_a_class_in_any_order_grown_or_shrunk_or_turned() -> None:
    examples = [bytes([number]) * 32 for number in np.random.default_rng(0).permutation(20)]
    whole = digest_class(examples)
    assert digest_class(examples[::-1]) == whole
    for index in range(20):
        fewer = digest_class(examples[:index] + examples[index + 1 :])
        assert set(fewer.known_by) & set(whole.known_by)
        assert set(fewer.turned("round").known_by) & set(whole.turned("round").known_by)
        assert not set(fewer.turned("round").known_by) & set(whole.known_by)
        assert fewer.content != whole.content
