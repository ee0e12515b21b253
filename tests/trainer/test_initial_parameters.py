"""Training can start from parameters that were trained before."""

import json
from pathlib import Path

import torch
from runs import DIGITS
from safetensors.torch import save_file
from shell import innerloop, mistake

from innerloop_learner.bundle import load_bundle
from innerloop_learner.manifest import read_manifest

QUICK = [
    "--data", "digits", "--ways", "2", "--iterations", "2", "--meta-batch", "1", "--queries", "2",
    "--validate-every", "1", "--validation-episodes", "2", "--test-episodes", "2", "--backbone-set", "width=4",
]  # fmt: skip
STILL = ["--learning-rate", "1e-30"]
"""So small a rate that what training started from is still there at its end."""


def trained(method: str, out: Path, *options: object) -> str:
    answer = innerloop("train", "--no-report", method, *QUICK, "--out", out, *options)
    assert answer.status == 0
    return " ".join(answer.output.split())


def test_what_fits_is_taken_and_the_rest_starts_fresh(tmp_path: Path) -> None:
    trained("baseline", tmp_path / "first", "--learning-rate", "0.1")
    # A small inner rate: with averages of another training, large ones soon leave the finite numbers.
    options = ["--init", tmp_path / "first", "--backbone-set", "norm=batch", "--set", "rate=0.001"]
    said = trained("maml", tmp_path / "second", *STILL, *options)
    before, after = (load_bundle(tmp_path / run / "bundle").params for run in ("first", "second"))
    assert torch.equal(before["conv3.weight"], after["conv3.weight"])
    assert not torch.equal(before["head.weight"][:2], after["head.weight"])  # 64 rows there, two here
    assert "Starts from first: " in said
    assert "fresh: head.weight, head.bias" in said


def test_features_that_told_turns_apart_start_another_method_and_the_classifiers_stay_behind(tmp_path: Path) -> None:
    trained("nearest-centroid", tmp_path / "first", "--set", "rotation_weight=1")
    bundle = load_bundle(tmp_path / "first" / "bundle")
    assert set(bundle.params) == set(bundle.learner.init(torch.Generator()))
    assert not [name for name in bundle.params if name.startswith(("turns", "classifier"))]
    assert bundle.manifest.provenance.training["settings"]["rotation_weight"] == 1
    said = trained("protonet", tmp_path / "second", *STILL, "--init", tmp_path / "first")
    after = load_bundle(tmp_path / "second" / "bundle").params
    assert torch.equal(bundle.params["conv3.weight"], after["conv3.weight"])
    assert "fresh" not in said


def test_a_safetensors_file_will_do_as_well(tmp_path: Path) -> None:
    weight = 1 + torch.arange(4 * 9, dtype=torch.float64).view(4, 1, 3, 3)
    save_file({"conv0.weight": weight, "foreign": torch.ones(3)}, tmp_path / "weights.safetensors")
    trained("maml", tmp_path / "run", *STILL, "--init", tmp_path / "weights.safetensors")
    assert torch.equal(load_bundle(tmp_path / "run" / "bundle").params["conv0.weight"], weight.float())


def test_norms_of_every_step_start_from_those_of_one(tmp_path: Path) -> None:
    save_file({"norm0.weight": torch.full((4,), 3.0)}, tmp_path / "weights.safetensors")
    trained("maml++", tmp_path / "run", *STILL, "--init", tmp_path / "weights.safetensors", "--steps", "2")
    assert torch.equal(load_bundle(tmp_path / "run" / "bundle").params["norm0.weight"], torch.full((3, 4), 3.0))


def test_the_record_names_the_content_and_no_path(tmp_path: Path) -> None:
    trained("maml", tmp_path / "first")
    digest = read_manifest(tmp_path / "first" / "bundle").digest
    trained("maml", tmp_path / "second", "--init", tmp_path / "first" / "bundle")
    manifest = read_manifest(tmp_path / "second" / "bundle")
    assert manifest.provenance.training["init"] == f"sha256:{digest}"
    assert str(tmp_path) not in json.dumps(manifest.to_json())


def test_a_run_resumes_with_the_start_it_had_and_no_other(tmp_path: Path) -> None:
    trained("maml", tmp_path / "a")
    trained("maml", tmp_path / "b", "--seed", "1")
    trained("maml", tmp_path / "run", "--init", tmp_path / "a")
    trained("maml", tmp_path / "run", "--init", tmp_path / "a", "--resume")
    options = ["train", "--no-report", "maml", *QUICK, "--out", tmp_path / "run", "--resume"]
    assert "--init is" in mistake(*options, "--init", tmp_path / "b")
    assert "--init is" in mistake(*options)


def test_parameters_that_do_not_fit_or_are_none_are_refused(tmp_path: Path) -> None:
    start = ["train", "--no-report", "maml", *QUICK, "--out", tmp_path / "run", "--init"]
    save_file({"conv0.weight": torch.ones(8, 1, 3, 3)}, tmp_path / "wide.safetensors")
    refused = mistake(*start, tmp_path / "wide.safetensors")
    assert "nothing of wide.safetensors fits this backbone: conv0.weight is [4, 1, 3, 3] here" in refused
    assert "--backbone-set" in refused
    assert "does not exist" in mistake(*start, tmp_path / "missing")
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    assert "is not a safetensors file" in mistake(*start, tmp_path / "torn.safetensors")
    assert "neither a bundle nor a training run" in mistake(*start, tmp_path)
    assert not (tmp_path / "run").exists()


def test_the_configuration_of_a_run_from_scratch_says_so() -> None:
    assert DIGITS.init is None
