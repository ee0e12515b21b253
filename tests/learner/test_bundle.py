"""Bundles: what is saved comes back, and what is not right is refused with a reason."""

import hashlib
import json
import math
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from innerloop_learner import InputSpec, LearnerSpec, Params, build_learner
from innerloop_learner.bundle import Bundle, load_bundle, save_bundle
from innerloop_learner.disk import INCOMING
from innerloop_learner.encoders import EncoderSpec
from innerloop_learner.manifest import (
    BundleError,
    Graphs,
    Manifest,
    Metric,
    Provenance,
    TaskLimits,
    read_manifest,
)

SPEC = LearnerSpec(
    method="maml",
    input=InputSpec((3, 4, 5), "uint8", (0.1, 0.2, 0.3), (1.0, 2.0, -3.0), 1 / 255),
    task_kind="classification",
    max_ways=7,
    target_size=0,
    backbone="mlp",
    backbone_settings={"widths": [6, 4], "norm": "batch"},
    settings={"steps": 3, "rate": 0.05, "max_steps": 9},
)
MANIFEST = Manifest(
    name="birds",
    learner=SPEC,
    limits=TaskLimits(trained_ways=6, trained_shots=2, trained_steps=3, max_ways=7, max_steps=9),
    provenance=Provenance(
        data="Birds of the garden, 40 kinds",
        seed=11,
        iterations=1234,
        created="2026-05-04T03:02:01+00:00",
        versions={"innerloop": "9.9", "torch": "2.99"},
        training={"method": "maml", "learning_rate": 0.001, "settings": {"rate": 0.05}},
    ),
    metrics=[
        Metric("accuracy", 0.9123456789, 0.0123, "inductive, 6-way 2-shot, 600 test episodes, birds"),
        Metric("accuracy", 0.95, 0.01, "transductive, 6-way 2-shot, 600 test episodes, birds"),
    ],
)
PARAMETERS = "parameters.safetensors"


def params(seed: int = 0) -> Params:
    return build_learner(SPEC).init(torch.Generator().manual_seed(seed))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    save_bundle(tmp_path / "birds", MANIFEST, params())
    return tmp_path / "birds"


def manifest_of(bundle: Path) -> dict[str, Any]:
    return json.loads((bundle / "manifest.json").read_text())


def forge(
    bundle: Path, change: Callable[[dict[str, Any]], object] | None = None, parameters: bytes | None = None
) -> None:
    """Alter a bundle and make all digests right again, as a careful forger or another program would."""
    data = manifest_of(bundle)
    if parameters is not None:
        (bundle / PARAMETERS).write_bytes(parameters)
        data["files"][PARAMETERS] = hashlib.sha256(parameters).hexdigest()
    if change is not None:
        change(data)
    content = {key: value for key, value in data.items() if key != "digest"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    data["digest"] = hashlib.sha256(text.encode()).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(data))


def refusal(bundle: Path) -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(bundle)
    assert str(bundle.parent) not in str(caught.value), "clients see this, and paths are nobody's affair"
    return str(caught.value)


def test_everything_saved_comes_back(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    filled_in = {name: getattr(loaded.manifest, name) for name in ("traits", "files", "digest")}
    assert loaded.manifest == replace(MANIFEST, **filled_in)
    assert loaded.learner.spec == build_learner(SPEC).spec
    assert loaded.params.keys() == params().keys()
    assert all(torch.equal(value, params()[name]) for name, value in loaded.params.items())
    assert read_manifest(bundle) == loaded.manifest


def test_the_written_manifest_is_the_returned_one(tmp_path: Path) -> None:
    written = save_bundle(tmp_path / "birds", MANIFEST, params())
    assert written == load_bundle(tmp_path / "birds").manifest
    assert written.version == written.digest[:12]


def test_the_digest_identifies_content(tmp_path: Path) -> None:
    one = save_bundle(tmp_path / "one", MANIFEST, params())
    assert save_bundle(tmp_path / "copy", MANIFEST, params()).digest == one.digest
    assert save_bundle(tmp_path / "retrained", MANIFEST, params(seed=1)).digest != one.digest
    assert save_bundle(tmp_path / "renamed", replace(MANIFEST, name="crows"), params()).digest != one.digest


def test_a_bundle_holds_a_manifest_and_safetensors_that_others_may_read(bundle: Path) -> None:
    assert sorted(path.name for path in bundle.iterdir()) == ["manifest.json", PARAMETERS]
    data = manifest_of(bundle)
    assert (data["format"], data["format_version"]) == ("innerloop-bundle", 4)
    assert data["files"] == {PARAMETERS: hashlib.sha256((bundle / PARAMETERS).read_bytes()).hexdigest()}
    assert bundle.stat().st_mode & 0o777 == 0o755


def test_fields_that_a_later_innerloop_adds_do_not_hurt(bundle: Path) -> None:
    forge(bundle, lambda data: data.update(licence="CC-BY"))
    assert load_bundle(bundle).manifest.name == "birds"


def test_a_truncated_or_altered_parameter_file_is_refused(bundle: Path) -> None:
    content = (bundle / PARAMETERS).read_bytes()
    for damaged in (content[:-1], b"", content[:-1] + bytes([content[-1] ^ 1])):
        (bundle / PARAMETERS).write_bytes(damaged)
        assert refusal(bundle) == (
            f"birds: {PARAMETERS} is truncated or altered (digest differs); copy or export it again"
        )


def test_a_missing_parameter_file_is_refused(bundle: Path) -> None:
    (bundle / PARAMETERS).unlink()
    assert refusal(bundle) == f"birds: {PARAMETERS} is missing or unreadable; export it again"


@pytest.mark.parametrize("field", ["name", "learner", "limits", "provenance", "metrics", "files", "digest"])
def test_every_altered_field_is_noticed(field: str, bundle: Path) -> None:
    data = manifest_of(bundle)
    changes = {"name": "crows", "digest": "0" * 64, "files": {PARAMETERS: "0" * 64}}
    if field == "learner":
        data["learner"]["settings"]["rate"] = 0.5
    elif field == "limits":
        data["limits"]["max_steps"] = 1000
    elif field == "provenance":
        data["provenance"]["seed"] = 12
    elif field == "metrics":
        data["metrics"][0]["value"] = 0.99
    else:
        data[field] = changes[field]
    (bundle / "manifest.json").write_text(json.dumps(data))
    assert refusal(bundle) == "birds: manifest.json was altered after it was written; export it again"


@pytest.mark.parametrize("field", ["name", "learner", "limits", "provenance", "metrics", "files", "digest"])
def test_every_missing_field_is_noticed(field: str, bundle: Path) -> None:
    data = manifest_of(bundle)
    del data[field]
    (bundle / "manifest.json").write_text(json.dumps(data))
    assert refusal(bundle) == f"birds: manifest.json lacks a field ({field!r})"


def test_a_truncated_manifest_is_refused(bundle: Path) -> None:
    text = (bundle / "manifest.json").read_text()
    (bundle / "manifest.json").write_text(text[: len(text) // 2])
    assert refusal(bundle) == "birds: manifest.json is not JSON; export it again"


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"[" * 100_000, b""], ids=["binary", "deeply nested", "empty"])
def test_a_manifest_that_is_no_json_is_refused(content: bytes, bundle: Path) -> None:
    (bundle / "manifest.json").write_bytes(content)
    assert refusal(bundle).startswith("birds: manifest.json is not JSON")


@pytest.mark.parametrize("content", [{"name": "left-pad", "version": "1.0.0"}, ["manifest"], None, 3])
def test_a_foreign_manifest_is_refused(content: object, bundle: Path) -> None:
    (bundle / "manifest.json").write_text(json.dumps(content))
    assert refusal(bundle) == "birds: manifest.json does not describe an Innerloop bundle"


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    assert refusal(tmp_path / "thesis") == "thesis: no manifest.json, so this is not a bundle"
    assert refusal(tmp_path / "absent") == "absent: no manifest.json, so this is not a bundle"
    (tmp_path / "file").write_text("text")
    assert refusal(tmp_path / "file").startswith("file: manifest.json can't be read (Not a directory)")


@pytest.mark.parametrize("version", [5, 99, 0, -1, "1", None])
def test_another_format_version_is_refused(version: object, bundle: Path) -> None:
    forge(bundle, lambda data: data.update(format_version=version))
    assert refusal(bundle) == f"birds: written in bundle format {version}, this Innerloop reads up to 4; upgrade it"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda d: d["learner"].update(method="telepathy"), "can't build its learner: unknown method 'telepathy'"),
        (lambda d: d["learner"].update(backbone="resnet"), "can't build its learner: unknown backbone 'resnet'"),
        (lambda d: d["learner"]["settings"].update(speed=3), "maml has no setting 'speed'"),
        (lambda d: d["learner"].update(settings=[1]), "settings must be an object, not [1]"),
        (lambda d: d["learner"]["backbone_settings"].update(widths=[-4]), "widths must be at least 1"),
        (lambda d: d["learner"].update(max_ways="many"), "max_ways must be a whole number, not 'many'"),
        (lambda d: d["learner"]["input"].update(shape=[]), "shape is made of whole numbers from 1 up"),
        (lambda d: d["learner"]["input"].update(shape=["a"]), "shape is made of whole numbers from 1 up"),
        (lambda d: d["learner"]["input"].update(dtype="object"), "dtype must be uint8 or float32"),
        (lambda d: d["learner"]["input"].update(std=[0]), "std is never zero"),
        (lambda d: d["limits"].update(max_ways="5"), "limits: max_ways must be a whole number, not '5'"),
        (lambda d: d["limits"].pop("max_steps"), "max_steps"),
        (lambda d: d["metrics"][0].update(value="high"), "metric: value must be a number, not 'high'"),
        (lambda d: d.update(metrics=[3]), "misstates a field"),
        (lambda d: d["provenance"].update(mood="good"), "provenance has no setting 'mood'"),
        (lambda d: d["files"].update({"../../etc/passwd": "0"}), "lists unexpected files ['../../etc/passwd', 'par"),
        (lambda d: d.update(files=[PARAMETERS]), "misstates a field"),
        (lambda d: d["limits"].update(trained_ways=-1), "limits: trained_ways lies between 0 and 1,000,000, not at -1"),
        (lambda d: d["limits"].update(max_steps=10**9), "limits: max_steps lies between 0 and 100,000"),
        (lambda d: d["traits"].update(default_steps=2, max_steps=1), "traits: steps lie between"),
        (lambda d: d["traits"].update(head_ways=-5), "traits: head_ways and max_ways lie between"),
        (lambda d: d["traits"].update(target_size=3), "target_size of classification lies between 0 and 0"),
        (lambda d: d["traits"].update(task_kind="regression", target_size=1), "are not those of the learner"),
        (lambda d: d["learner"]["input"].update(mean=[math.nan]), "mean, std and scale are finite numbers"),
        (lambda d: d["learner"]["input"].update(scale=math.inf), "mean, std and scale are finite numbers"),
        (lambda d: d["learner"]["input"].update(shape=[10**5, 10**5]), "an input has at most"),
        (lambda d: d["learner"]["backbone_settings"].update(widths=[10**9, 10**9]), "can't build its learner; export"),
        (lambda d: d.update(name=["birds"]), "name and digest are texts"),
        (lambda d: d["learner"].update(method="\ud800"), "is not JSON"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(
    change: Callable[[dict[str, Any]], object], why: str, bundle: Path
) -> None:
    forge(bundle, change)
    assert why in refusal(bundle)


@pytest.mark.parametrize("name", ["manifest.json", PARAMETERS])
@pytest.mark.parametrize("kind", ["pipe", "endless", "folder"])
def test_only_regular_files_are_read_and_nothing_holds_up_the_reader(name: str, kind: str, bundle: Path) -> None:
    (bundle / name).unlink()
    if kind == "pipe":
        os.mkfifo(bundle / "pipe")
        (bundle / name).symlink_to("pipe")
    elif kind == "endless":
        (bundle / name).symlink_to("/dev/zero")
    else:
        (bundle / name).mkdir()
    assert f"{name} is no regular file" in refusal(bundle)


@pytest.mark.parametrize("name", ["manifest.json", PARAMETERS])
def test_no_more_of_a_file_is_read_than_a_bundle_can_have(name: str, bundle: Path) -> None:
    os.truncate(bundle / name, 2**40)
    assert f"{name} is larger than" in refusal(bundle)


def test_parameters_that_are_no_numbers_are_refused(bundle: Path) -> None:
    forge(bundle, parameters=save({**params(), "head.bias": torch.full((7,), math.nan)}))
    assert "its parameters are no finite numbers (head.bias)" in refusal(bundle)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda p: p.pop("head.bias"), "unknown or missing head.bias"),
        (lambda p: p.update(extra=torch.zeros(2)), "unknown or missing extra"),
        (lambda p: p.update({"head.bias": torch.zeros(8)}), "head.bias is torch.float32 [8], not torch.float32 [7]"),
        (lambda p: p.update({"head.bias": torch.zeros(7, 1)}), "head.bias is torch.float32 [7, 1]"),
        (lambda p: p.update({"head.bias": torch.zeros(7).half()}), "head.bias is torch.float16 [7], not torch.float32"),
        (lambda p: p.update({"head.bias": torch.zeros(7, dtype=torch.int64)}), "head.bias is torch.int64 [7]"),
    ],
)
def test_parameters_that_do_not_fit_the_learner_are_refused(
    change: Callable[[Params], object], why: str, bundle: Path
) -> None:
    changed = params()
    change(changed)
    forge(bundle, parameters=save(changed))
    assert refusal(bundle).startswith(f"birds: its parameters do not fit its learner: {why}")


GRAPHS = Graphs(opset=20)
ENCODER = EncoderSpec("images", 384, "features", shape=(3, 224, 224), mean=(0.5,), std=(0.2, 0.3, 0.4))
FURTHER = {"adapt.onnx": b"adapting", "predict.onnx": b"predicting", "encoder.onnx": b"encoding"}


def test_a_bundle_with_onnx_files_comes_back_with_them(tmp_path: Path) -> None:
    manifest = replace(MANIFEST, graphs=GRAPHS, encoder=ENCODER)
    written = save_bundle(tmp_path / "birds", manifest, params(), FURTHER)
    loaded = load_bundle(tmp_path / "birds")
    assert loaded.manifest == written
    assert (written.graphs, written.encoder) == (GRAPHS, ENCODER)
    assert loaded.files == FURTHER


def test_a_bundle_tells_the_traits_of_its_learner_without_pytorch(bundle: Path) -> None:
    assert read_manifest(bundle).traits == build_learner(SPEC).traits


def test_only_bundles_whose_adaptations_can_be_extended_say_so(tmp_path: Path, bundle: Path) -> None:
    assert "extends" not in json.loads((bundle / "manifest.json").read_text())["traits"]
    spec = replace(SPEC, method="protonet", settings={})
    learner = build_learner(replace(spec, backbone_settings={**spec.backbone_settings, "norm": "batch"}))
    fresh = learner.init(torch.Generator().manual_seed(0))
    save_bundle(tmp_path / "extends", replace(MANIFEST, learner=learner.spec), fresh)
    written = json.loads((tmp_path / "extends" / "manifest.json").read_text())["traits"]
    assert written["extends"] is True
    assert read_manifest(tmp_path / "extends").traits == learner.traits


def test_bundles_of_the_first_format_still_load(bundle: Path) -> None:
    def age(data: dict[str, Any]) -> None:
        data.update(format_version=1)
        del data["traits"]

    forge(bundle, age)
    assert load_bundle(bundle).manifest.traits is None


def test_bundles_of_the_second_format_kept_traits_beside_their_graphs(tmp_path: Path) -> None:
    files = {name: FURTHER[name] for name in ("adapt.onnx", "predict.onnx")}
    written = save_bundle(tmp_path / "birds", replace(MANIFEST, graphs=GRAPHS), params(), files)
    assert written.traits is not None

    def age(data: dict[str, Any]) -> None:
        traits = data.pop("traits")
        names = ("ways_can_change", "order_matters", "gradients_at_serving", "default_steps", "max_steps")
        data["graphs"] |= {name: traits[name] for name in names}
        del data["learner"]["class_balance"]
        data.update(format_version=2)

    forge(tmp_path / "birds", age)
    loaded = load_bundle(tmp_path / "birds").manifest
    assert (loaded.traits, loaded.graphs) == (written.traits, GRAPHS)
    assert loaded.learner.class_balance == "proportional", "as its graphs count examples"


def test_bundles_of_the_third_format_knew_no_audio_and_no_origin_of_encoders(tmp_path: Path) -> None:
    manifest = replace(MANIFEST, encoder=ENCODER)
    written = save_bundle(tmp_path / "birds", manifest, params(), {"encoder.onnx": FURTHER["encoder.onnx"]})

    def age(data: dict[str, Any]) -> None:
        data.update(format_version=3)
        for name in ("rate", "feature_shape", "origin"):
            del data["encoder"][name]

    forge(tmp_path / "birds", age)
    loaded = load_bundle(tmp_path / "birds").manifest
    assert (loaded.traits, loaded.encoder) == (written.traits, ENCODER)


@pytest.mark.parametrize(
    ("method", "retired"),
    [
        ("reptile", {"train_steps": 4, "batch": 5}),
        ("maml++", {"multi_step_loss": False, "anneal_order": True}),
        ("lstm-optimizer", {"step_weights": [], "truncate": 0, "initialisation": "learned"}),
    ],
)
def test_settings_of_training_are_passed_over_in_older_bundles(method: str, retired: dict[str, Any]) -> None:
    spec = replace(SPEC, method=method, settings={"steps": 3, "max_steps": 9})
    learner = build_learner(replace(spec, settings={**spec.settings, **retired}))
    assert learner.spec == build_learner(spec).spec


@pytest.mark.parametrize("file", FURTHER)
def test_a_truncated_or_missing_onnx_file_is_refused(file: str, tmp_path: Path) -> None:
    save_bundle(tmp_path / "birds", replace(MANIFEST, graphs=GRAPHS, encoder=ENCODER), params(), FURTHER)
    (tmp_path / "birds" / file).write_bytes(FURTHER[file][:-1])
    assert refusal(tmp_path / "birds") == (
        f"birds: {file} is truncated or altered (digest differs); copy or export it again"
    )
    (tmp_path / "birds" / file).unlink()
    assert refusal(tmp_path / "birds") == f"birds: {file} is missing or unreadable; export it again"


@pytest.mark.parametrize(
    ("manifest", "files"),
    [
        (MANIFEST, {"adapt.onnx": b""}),
        (replace(MANIFEST, graphs=GRAPHS), {}),
        (replace(MANIFEST, graphs=GRAPHS), {"adapt.onnx": b""}),
        (replace(MANIFEST, graphs=replace(GRAPHS, refused="it sorts")), {"adapt.onnx": b"", "predict.onnx": b""}),
        (replace(MANIFEST, encoder=EncoderSpec("texts", 384, "features", max_tokens=8)), {"encoder.onnx": b""}),
        (MANIFEST, {"../parameters.safetensors": b""}),
    ],
)
def test_files_other_than_those_the_manifest_speaks_of_are_not_written(
    manifest: Manifest, files: dict[str, bytes], tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="this bundle holds"):
        save_bundle(tmp_path / "birds", manifest, params(), files)
    assert list(tmp_path.iterdir()) == []


def test_manifests_and_files_are_read_without_pytorch(bundle: Path) -> None:
    code = (
        "import sys; sys.modules.update(torch=None, safetensors=None)\n"
        "from pathlib import Path; from innerloop_learner.manifest import read_files, read_manifest\n"
        "path = Path(sys.argv[1]); manifest = read_manifest(path); print(manifest.digest, *read_files(path, manifest))"
    )
    result = subprocess.run([sys.executable, "-c", code, bundle], capture_output=True, text=True, check=False)
    assert (result.stdout.split(), result.stderr) == ([read_manifest(bundle).digest, PARAMETERS], "")


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.write_text, (self._file, "caught")


def test_a_pickle_is_refused_and_not_executed(bundle: Path, tmp_path: Path) -> None:
    trap = tmp_path / "caught"
    content = pickle.dumps(Trap(trap))
    pickle.loads(content)
    assert trap.exists(), "the trap works"
    trap.unlink()
    forge(bundle, parameters=content)
    assert refusal(bundle) == f"birds: {PARAMETERS} is not a safetensors file of tensors; export it again"
    assert not trap.exists()


def test_tensors_of_a_type_unknown_here_are_refused(bundle: Path) -> None:
    header = json.dumps({"x": {"dtype": "F8_E8M0", "shape": [1], "data_offsets": [0, 1]}}).encode()
    forge(bundle, parameters=struct.pack("<Q", len(header)) + header + b"\0")
    assert "parameters" in refusal(bundle)


def test_nothing_but_a_bundle_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    with pytest.raises(BundleError, match="thesis exists and is not a bundle; choose another path or remove it"):
        save_bundle(tmp_path / "thesis", MANIFEST, params())
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    "manifest", ['{"manifest_version": 3}', "{}", "[]", "not JSON", '{"format": "other", "files": {}}']
)
def test_a_folder_with_a_manifest_of_another_program_is_not_replaced(manifest: str, tmp_path: Path) -> None:
    files = {"manifest.json": manifest, "main.js": "code", PARAMETERS: "theirs"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(BundleError, match="exists and is not a bundle"):
        save_bundle(tmp_path, MANIFEST, params())
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


def test_what_lies_beside_a_bundle_stays_when_the_bundle_is_replaced(bundle: Path) -> None:
    (bundle / "README.md").write_text("who made this")
    (bundle / "figures").mkdir()
    (bundle / "figures" / "curve.png").write_text("a picture")
    # A manifest, damaged or forged, may list any name: only those of bundles are ever replaced or removed.
    forge(bundle, lambda data: data["files"].update({"README.md": "0", "../neighbour": "0", "adapt.onnx": "0"}))
    (bundle.parent / "neighbour").write_text("another's")
    (bundle / "adapt.onnx").write_text("of the old bundle")
    save_bundle(bundle, replace(MANIFEST, name="crows"), params(seed=1))
    assert load_bundle(bundle).manifest.name == "crows"
    assert (bundle / "README.md").read_text() == "who made this"
    assert (bundle / "figures" / "curve.png").read_text() == "a picture"
    assert (bundle.parent / "neighbour").read_text() == "another's"
    assert not (bundle / "adapt.onnx").exists()


def test_a_file_of_another_origin_is_not_replaced_by_one_of_the_same_name(bundle: Path) -> None:
    (bundle / "adapt.onnx").write_text("mine")
    graphs = Graphs(18)
    with pytest.raises(BundleError, match=r"holds a file adapt.onnx that is not of the bundle there; move it away"):
        save_bundle(bundle, replace(MANIFEST, graphs=graphs), params(), {"adapt.onnx": b"a", "predict.onnx": b"p"})
    assert (bundle / "adapt.onnx").read_text() == "mine"
    assert load_bundle(bundle).manifest.name == "birds"


def test_a_damaged_bundle_can_be_replaced(bundle: Path) -> None:
    (bundle / PARAMETERS).write_bytes(b"cut")
    save_bundle(bundle, MANIFEST, params())
    assert load_bundle(bundle).manifest.name == "birds"


def test_files_that_a_crash_left_on_their_way_are_the_bundle_s(bundle: Path) -> None:
    (bundle / INCOMING).mkdir()
    (bundle / PARAMETERS).rename(bundle / INCOMING / PARAMETERS)
    assert load_bundle(bundle).manifest.name == "birds"
    (bundle / PARAMETERS).write_bytes(b"of the bundle before")
    assert load_bundle(bundle).manifest.name == "birds"


def test_a_bundle_replaces_a_bundle_and_leaves_nothing_beside_it(bundle: Path) -> None:
    save_bundle(bundle, replace(MANIFEST, name="crows"), params(seed=1))
    loaded: Bundle = load_bundle(bundle)
    assert loaded.manifest.name == "crows"
    assert torch.equal(loaded.params["head.weight"], params(seed=1)["head.weight"])
    assert [path.name for path in bundle.parent.iterdir()] == ["birds"]
