"""What users get wrong is told in one line, early, with nothing lost."""

import json
from pathlib import Path

import pytest
from shell import innerloop, mistake

from innerloop_learner.bundle import load_bundle

TRAIN = ["--data", "digits", "--ways", 2, "--iterations", 2, "--device", "cpu", "--queries", 3]
BLOCKS = 'blocks=[{"edges": ["skip"]}]'
QUICK = ["--validation-episodes", 2, "--test-episodes", 2, "--backbone-set", "width=8"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of MAML."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert innerloop("train", "maml", *TRAIN, *QUICK, "--out", folder).status == 0
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mamml"], "unknown method 'mamml'; there are: anil, "),
        (["maml", "--backbone", "resnet"], "unknown backbone 'resnet'; there are: adapter, cell, "),
        (["maml", "--backbone-set", "norm=x"], "backbone conv4: unknown norm 'x'; there are: batch, group, layer"),
        (["maml", "--backbone-set", "depth=5"], "backbone conv4 has no setting 'depth'; it has: width, downsample"),
        (["maml", "--backbone-set", "width=wide"], "backbone conv4: width must be a whole number, not 'wide'"),
        (["maml", "--backbone-set", "downsample=avg"], "downsample must be max_pool or stride, not 'avg'"),
        (["maml", "--set", "speed=1"], "maml has no setting 'speed'; it has: steps, max_steps, update_rule, rate"),
        (["maml", "--set", "rate=-1"], "maml: the inner rate must be positive, not -1"),
        (["maml", "--set", "update_rule=x"], "maml: unknown update rule 'x'; there are: adam, "),
        (["maml", "--set", "rate"], "settings are written NAME=VALUE, not 'rate'"),
        (["maml", "--set", "rate=1", "--set", "rate=2"], "rate is set twice; leave one out"),
        (["maml", "--set", "steps=3", "--steps", "4"], "--steps is 4, but --set steps is 3; leave one out"),
        (["maml", "--steps", "99"], "maml: steps must lie between 1 and max_steps (20), not 99"),
        (["maml", "--learning-rate", "0"], "--learning-rate must be a positive number, not 0.0"),
        (["maml", "--train-ways", "4"], "maml trains on as many ways as it serves; leave --train-ways out"),
        (["maml", "--max-ways", "9"], "maml serves as many ways as it trains on; leave --max-ways out"),
        (["protonet", "--ways", "3", "--max-ways", "2"], "--max-ways 2 is less than --ways 3; raise it"),
        (["oml", "--max-ways", "2000"], "oml needs an output for each of 2000 classes; raise outputs"),
        (["maml", "--ways", "3"], "digits, validation split has 2 classes, too few for 3 ways; lower --ways to 2"),
        (["maml", "--ways", "7"], "digits, training split has 6 classes, too few for 7 ways; lower --ways to 6"),
        (["maml", "--shots", "999"], "lower --shots or --queries"),
        (["maml", "--device", "tpu"], "unknown device 'tpu'; use auto, cpu, cuda or cuda:N"),
        (["maml", "--device", "cuda:99"], "there is no device cuda:99 on this machine"),
        (["maml", "--data", "numbers"], "unknown data source 'numbers'; there are: audio, cifar-fs, cub, digits"),
        (["maml", "--data", "omniglot:/nowhere"], "/nowhere does not exist"),
        (["protonet", "--steps", "5"], "protonet has no inner steps; leave --steps out"),
        (["protonet", "--set", "steps=5"], "protonet has no setting 'steps'; it has: in_turn"),
        (["maml", "--set", "in_turn=true"], "features of a task's examples once, and those of this maml model depend"),
        (
            ["protonet", "--shots", "5", "--wrong-labels", "0.2", "--set", "in_turn=true"],
            "with in_turn, support examples are queries, too, and these need right labels; leave --wrong-labels or",
        ),
        (["protonet", "--unlabelled", "--set", "in_turn=true"], "with --unlabelled tasks name none; leave --unlab"),
        (["protonet", "--mix-tasks", "0.5", "--set", "in_turn=true"], "with --mix-tasks tasks name none; leave --mix-"),
        (
            ["anil", "--backbone-set", "norm=batch", "--estimator", "reptile", "--set", "in_turn=true"],
            "the estimator reptile does not evaluate the loss that in_turn changes; leave --set in_turn out",
        ),
        (["fomaml", "--weighting", "leave_one_out"], "fomaml can't learn weights of its support examples"),
        (["protonet", "--weighting", "x"], "unknown weighting 'x'; there are: leave_one_out, none"),
        (["protonet", "--transform", "x"], "unknown transformation 'x'; there are: feature_wise"),
        (["maml", "--transform", "feature_wise"], "the inner loop of maml changes the norms itself; choose a method"),
        (["anil", "--estimator", "reptile", "--transform", "feature_wise"], "it would leave the transformation out"),
        (["protonet", "--estimator", "mldg"], "mldg holds out domains, of which digits has none"),
        (["protonet", "--estimator", "mldg", "--unlabelled"], "without labels there are none; leave --unlabelled out"),
        (["protonet", "--estimator", "darts"], "darts mixes networks that could be, and leaves none; run innerloop se"),
        (["maml", "--backbone", "cell-mixture", "--backbone-set", BLOCKS], "it learns no mixture of operations"),
        (["snail", "--support-policy", "learned"], "snail takes no augmented copies of its support examples"),
        (["protonet", "--support-policy", "x"], "unknown support policy 'x'; there are: fixed, learned, none"),
        (["protonet", "--policy-set", "copies=2"], "support policy none has no setting 'copies'; it has none"),
        (["protonet", "--support-policy", "fixed", "--policy-set", "augment=x"], "unknown augmentation 'x'"),
        (["simclr", "--queries", "1"], "simclr compares queries of a class; raise --queries to 2 or more"),
        (["protonet", "--wrong-labels", "0.4"], "--wrong-labels 0.4 of --shots 1 is less than one example"),
        (["maml", "--data", "sinusoid", "--shots", "5", "--wrong-labels", "0.4"], "sinusoid has targets and no labels"),
        (["maml", "--data", "sinusoid", "--class-balance", "proportional"], "sinusoid has no classes to balance"),
        (["protonet", "--data", "sinusoid"], "protonet does not solve regression tasks, only classification"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_in_train_is_told_before_anything_is_written(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    method, *options = arguments
    assert message in mistake("train", method, *TRAIN, *options, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_mistake_that_shows_without_the_data_is_told_before_the_data_is_read(tmp_path: Path, run: Path) -> None:
    absent = ["--data", "omniglot:/nowhere", "--out"]
    assert "holds a run already" in mistake("train", "maml", *absent, run)
    assert "holds no training run" in mistake("train", "maml", *absent, tmp_path / "run", "--resume")
    assert "unknown method" in mistake("train", "mamml", *absent, tmp_path / "run")
    assert "no inner steps" in mistake("train", "protonet", "--steps", "3", *absent, tmp_path / "run")


def test_a_run_is_neither_overwritten_nor_resumed_with_other_settings(run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert f"{run} holds a run already; continue it with --resume" in mistake(
        "train", "maml", *TRAIN, *QUICK, "--out", run
    )
    message = mistake("train", "anil", *TRAIN, *QUICK, "--shots", 2, "--seed", 1, "--out", run, "--resume")
    for different in ("--method is maml there, anil here", "--shots is 1 there, 2 here", "--seed is 0 there, 1 here"):
        assert different in message
    assert "--ways" not in message
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_damaged_run_can_still_be_evaluated_and_says_why_it_can_not_be_resumed(run: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in ("config.json", "latest.safetensors"):
        (damaged / file).write_bytes((run / file).read_bytes()[:-5])
    (damaged / "bundle").symlink_to(run / "bundle")
    resume = ["train", "maml", *TRAIN, *QUICK, "--out", damaged, "--resume"]
    assert f"{damaged}/config.json can't be read" in mistake(*resume)
    (damaged / "config.json").write_bytes((run / "config.json").read_bytes())
    assert f"{damaged}/latest.safetensors is damaged" in mistake(*resume)
    assert innerloop("evaluate", damaged, "--data", "digits", "--episodes", 2).status == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "sinusoid"], "solves classification tasks, sinusoid has regression"),
        (["--data", "digits", "--split", "train", "--ways", "3"], "this maml model takes at most 2 ways, not 3"),
        (["--data", "digits", "--steps", "21"], "this maml model takes 0 to 20 inner steps, not 21"),
        (["--data", "digits", "--ways", "3"], "digits, test split has 2 classes, too few for 3 ways"),
        (["--data", "digits", "--device", "abacus"], "unknown device 'abacus'"),
        (["--data", "letters"], "unknown data source 'letters'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_in_evaluate_is_told(arguments: list[str], message: str, run: Path) -> None:
    assert message in mistake("evaluate", run, *arguments)


def test_figures_that_could_not_be_written_are_not_measured_first(run: Path, tmp_path: Path) -> None:
    long = ["evaluate", run, "--data", "digits", "--episodes", 10**9, "--json"]
    assert f"there is no folder {tmp_path}/absent" in mistake(*long, tmp_path / "absent" / "figures.json")
    assert f"{tmp_path} can't be written; name another file" in mistake(*long, tmp_path)
    (tmp_path / "notes.json").write_text('{"bundle": "what I found"}')
    assert "notes.json holds something else than such results" in mistake(*long, tmp_path / "notes.json")
    assert (tmp_path / "notes.json").read_text() == '{"bundle": "what I found"}'


def test_figures_replace_earlier_figures_and_empty_files(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    file.touch()
    for episodes in (2, 3):
        innerloop("evaluate", run, "--data", "digits", "--queries", 3, "--episodes", episodes, "--json", file)
        assert f"{episodes} test episodes" in json.loads(file.read_text())["protocol"]
    assert innerloop("evaluate", run, "--data", "digits", "--episodes", 2, "--json", "/dev/null").status == 0
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("command", ["evaluate", "export", "inspect"])
def test_what_is_neither_a_bundle_nor_a_run_is_told(command: str, tmp_path: Path) -> None:
    options = {"evaluate": ["--data", "digits"], "export": ["--out", tmp_path / "out"], "inspect": []}[command]
    assert f"{tmp_path} is neither a bundle nor a training run" in mistake(command, tmp_path, *options)
    assert "is neither a bundle nor a training run" in mistake(command, tmp_path / "absent", *options)
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_bundle_says_so(run: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((run / "config.json").read_bytes())
    assert "has no bundle yet, since nothing was validated; train on with --resume" in mistake("inspect", tmp_path)


def test_a_tampered_bundle_is_refused(run: Path, tmp_path: Path) -> None:
    innerloop("export", run, "--out", tmp_path / "model")
    file = tmp_path / "model" / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["metrics"][0]["value"] = 1.0
    file.write_text(json.dumps(manifest))
    assert "model: manifest.json was altered after it was written" in mistake("inspect", tmp_path / "model")


def test_export_replaces_nothing_but_bundles(run: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert "exists and is not a bundle" in mistake("export", run, "--out", tmp_path)
    assert "exists and is not a bundle" in mistake("export", run, "--out", tmp_path / "thesis.txt")
    assert f"{tmp_path}/thesis.txt: File exists" in mistake("export", run, "--out", tmp_path / "thesis.txt" / "model")
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    assert load_bundle(run / "bundle")
