"""Distillation: what teachers say, what is learned of them, and that nothing of them is left in what serves."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bundles import PROTOTYPES, REGRESSION, write_bundle
from cases import CASES, Case
from runs import CPU, DIGITS
from shell import innerloop, mistake

from innerloop_learner import InputSpec, LearnerSpec, Params
from innerloop_learner.bundle import Bundle, load_bundle
from innerloop_learner.manifest import Manifest, Provenance, TaskLimits, read_manifest
from innerloop_learner.objectives import Stage
from innerloop_learner.settings import SettingsError
from innerloop_trainer.config import TrainingConfig
from innerloop_trainer.data import load_source
from innerloop_trainer.outer_loop import OptimizerPlan, OuterLoop, build_estimator
from innerloop_trainer.outer_loop.estimators.pilot import Pilot, halves
from innerloop_trainer.runs.folder import RunFolder
from innerloop_trainer.runs.prepare import prepare
from innerloop_trainer.runs.teachers import read_teachers
from innerloop_trainer.teaching import Distillation, DistillationSettings, Teachers, teachings
from innerloop_trainer.teaching.distillation import TEACHER
from innerloop_trainer.teaching.teachers import head_of

NETWORK: dict[str, Any] = {"backbone": "mlp", "backbone_settings": {"widths": [8, 6], "activation": "tanh"}}
POINTS = LearnerSpec("protonet", InputSpec((4,)), max_ways=4, **NETWORK)
STEPS = {"steps": 2, "rate": 0.2}
TEMPERATURE = "teacher.log_temperature"
STUDENTS = [
    Case(POINTS),
    Case(replace(POINTS, method="maml", settings=STEPS)),
    Case(replace(POINTS, method="r2d2")),
    Case(replace(CASES[0].spec, method="protonet", settings={}, input=InputSpec((1, 16, 16)))),
]
USUAL = {"width": 8, "downsample": "max_pool", "norm": "task"}
OF_METHODS = [case for case in CASES if case.spec.backbone_settings == USUAL]
"""One case for each method that classifies."""


def teacher(case: Case, seed: int = 5) -> Bundle:
    """A teacher in float64."""
    limits = TaskLimits(4, 1, case.learner.default_steps, 4, case.learner.max_steps)
    manifest = Manifest(case.spec.method, case.spec, limits, Provenance("none", 0, 0, "", {}))
    params = case.learner.init(torch.Generator().manual_seed(seed))
    return Bundle(manifest, case.learner, {name: value.double() for name, value in params.items()})


def teachers_of(student: Case) -> Teachers:
    """Two teachers of different methods, on the student's inputs."""
    spec = replace(student.spec, method="maml", settings=STEPS)
    return Teachers([teacher(Case(replace(student.spec, method="protonet", settings={}))), teacher(Case(spec), seed=6)])


def distilled(student: Case, teaching: str, teachers: Teachers | None = None, **settings: Any) -> Distillation:
    given = DistillationSettings(**{"temperature": 2.0, **settings})
    return Distillation(student.objective, teachers or teachers_of(student), teachings[teaching](), given)


def params_of(student: Case, objective: Distillation) -> Params:
    return {**student.params(), **{name: value.double() for name, value in objective.of_teachers().items()}}


@pytest.mark.parametrize("teaching", [name for name in teachings if teachings[name].learns])
@pytest.mark.parametrize("student", STUDENTS, ids=lambda case: case.name)
def test_the_gradient_of_teachers_through_the_pilot_step_equals_finite_differences(
    student: Case, teaching: str
) -> None:
    objective, episodes = distilled(student, teaching), student.episodes(tasks=2, queries=4)
    params, rate, stage = params_of(student, objective), 0.3, Stage()
    pilot = build_estimator("pilot", objective, {"pilot_rate": rate})
    exact = pilot.estimate_ahead(params, episodes, stage)
    assert all(name.startswith(TEACHER) for name in exact)
    taught, held_out = halves(episodes)

    def held_out_loss(moved: Params) -> float:
        """The loss of the student after a step on the distillation loss, for which the teachers are constants."""
        learned = {n: v.detach().requires_grad_() for n, v in student.params().items()}
        loss = objective({**params, **moved, **learned}, taught, stage).loss
        slopes = torch.autograd.grad(loss, list(learned.values()), allow_unused=True)
        after = {
            name: value if slope is None else value - rate * slope
            for (name, value), slope in zip(learned.items(), slopes, strict=True)
        }
        return student.objective({**params, **after}, held_out, stage).loss.item()

    generator, step = torch.Generator().manual_seed(7), 1e-5
    for _ in range(2):
        direction = {name: torch.randn(g.shape, generator=generator, dtype=g.dtype) for name, g in exact.items()}
        ahead, behind = ({n: params[n] + size * d for n, d in direction.items()} for size in (step, -step))
        measured = (held_out_loss(ahead) - held_out_loss(behind)) / (2 * step)
        expected = sum((exact[name] * direction[name]).sum().item() for name in exact)
        assert abs(expected) > 1e-7
        assert measured == pytest.approx(expected, rel=1e-3, abs=1e-9)


def test_halves_divide_the_queries_of_every_class() -> None:
    episodes = STUDENTS[0].episodes(tasks=2, queries=4)
    one, other = halves(episodes)
    for half in (one, other):
        assert half.targets.tolist() == [[0, 0, 1, 1, 2, 2]] * 2
        assert half.support is episodes.support
    everything = torch.stack([one.query.x, other.query.x], 2).flatten(1, 2)
    assert torch.equal(everything, episodes.query.x)


def test_the_loss_is_that_of_the_paper_with_averaged_probabilities() -> None:
    student = STUDENTS[0]
    objective, episodes, share, t = distilled(student, "plain", teacher_share=0.3), student.episodes(), 0.3, 2.0
    params = student.params()
    own = student.objective(params, episodes, Stage())
    p = torch.zeros_like(own.outputs[..., :3])
    for bundle in objective.teachers.bundles:
        state = bundle.learner.adapt(bundle.params, episodes.support).state
        p += (bundle.learner.predict(bundle.params, state, episodes.query)[..., :3] / t).softmax(-1) / 2
    q = (own.outputs[..., :3] / t).softmax(-1)
    expected = (1 - share) * own.loss + share * t**2 * (p * (p / q).log()).sum(-1).mean()
    assert objective(params, episodes, Stage()).loss.item() == pytest.approx(expected.item(), rel=1e-10)


def test_a_batch_of_tasks_is_taught_as_each_task_alone() -> None:
    student = STUDENTS[1]
    objective, episodes = distilled(student, "head"), student.episodes()
    params, alone = params_of(student, objective), [episodes.of_tasks(slice(at, at + 1)) for at in range(3)]
    together, each = (
        objective.answers(params, episodes),
        [objective.answers(params, task).log_probabilities for task in alone],
    )
    torch.testing.assert_close(together.log_probabilities, torch.cat(each), rtol=1e-9, atol=1e-12)
    losses = [objective(params, task, Stage()).loss for task in alone]
    torch.testing.assert_close(objective(params, episodes, Stage()).loss, torch.stack(losses).mean())


@pytest.mark.parametrize("case", OF_METHODS, ids=lambda case: case.spec.method)
def test_every_method_that_answers_queries_teaches_and_is_taught(case: Case) -> None:
    name, episodes = case.spec.method, case.episodes(tasks=2)
    answers = Teachers([teacher(case)]).log_probabilities({}, episodes, torch.tensor(2.0))
    torch.testing.assert_close(answers.exp().sum(-1), torch.ones(2, 9, dtype=torch.float64))
    assert set(head_of(case.learner)) <= case.learner.init(torch.Generator()).keys()
    teachers = Teachers([teacher(Case(replace(case.spec, method="protonet", settings={})))])
    refused = {"simclr": "not trained by answers", "partial-maml": "no gradient reaches the choices"}
    if name in refused:
        with pytest.raises(SettingsError, match=refused[name]):
            build_estimator("pilot", distilled(case, "head", teachers), {})
        return
    pilot = build_estimator("pilot", distilled(case, "head", teachers), {})
    assert isinstance(pilot, Pilot)
    params = params_of(case, pilot.objective)
    gradients = pilot.estimate_ahead(params, episodes, Stage())
    assert all(value.isfinite().all() for value in gradients.values())
    assert any((value != 0).any() for value in gradients.values())
    assert not any(each.startswith(TEACHER) for each in pilot.estimate(params, {}, episodes, Stage()).gradients)


def test_teachers_take_their_step_before_the_student_takes_its_own() -> None:
    student = STUDENTS[0]
    objective, episodes = distilled(student, "temperature"), student.episodes(queries=4)
    plan = OptimizerPlan(10, learning_rate=0.01, gradient_clip=10.0)
    pilot = build_estimator("pilot", objective, {"teacher_rate": 10.0})
    params = params_of(student, objective)
    loop = OuterLoop(pilot, params, plan, seed=0)
    loop.step(episodes, 0)
    moved = loop.params[TEMPERATURE]
    assert (moved - params[TEMPERATURE]).abs().item() == pytest.approx(0.3, rel=1e-3)
    by_moved = build_estimator("backpropagation", distilled(student, "plain", temperature=moved.exp().item()), {})
    expected = OuterLoop(by_moved, student.params(), plan, seed=0)
    expected.step(episodes, 0)
    for name, value in expected.params.items():
        torch.testing.assert_close(loop.params[name], value, rtol=1e-9, atol=1e-12)


# Whole runs.

STUDENT = replace(
    DIGITS, method="protonet", settings={}, iterations=8, backbone_settings={"width": 4, "norm": "batch"}, ways=2
)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained teacher."""
    folder = tmp_path_factory.mktemp("teachers") / "wide"
    config = replace(STUDENT, seed=1, backbone_settings={"width": 8, "norm": "batch"})
    run(config, folder)
    return folder


def run(config: TrainingConfig, folder: Path, teachers: Sequence[Path] = (), stop_at: int = 0) -> RunFolder:
    """Train to the end, or to `stop_at` outer steps; a run that is there goes on."""
    run_folder = RunFolder(folder)
    read = read_teachers(teachers, CPU)
    training = prepare(config, run_folder, CPU, resume=run_folder.exists, teachers=read).training
    training.run(lambda _: None, lambda: training.progress.iteration == stop_at)
    return run_folder


@pytest.mark.parametrize("teaching", ["plain", "temperature"])
def test_teachers_without_a_say_change_nothing_to_the_bit(teaching: str, wide: Path, tmp_path: Path) -> None:
    silent = replace(STUDENT, teaching=teaching, settings={"teacher_share": 0.0})
    ours, theirs = run(silent, tmp_path / "taught", [wide]), run(STUDENT, tmp_path / "alone")
    (state, _), (expected, _) = ours.load_latest(CPU), theirs.load_latest(CPU)
    names = [name for name in expected if name.startswith(("parameters.", "optimizer."))]
    assert names
    assert all(torch.equal(state[name], expected[name]) for name in names)
    loud = run(replace(STUDENT, teaching=teaching), tmp_path / "loud", [wide]).load_latest(CPU)[0]
    assert not all(torch.equal(loud[name], expected[name]) for name in names)


def test_a_taught_run_resumes_to_the_bit_and_with_its_own_teachers_only(wide: Path, tmp_path: Path) -> None:
    config = replace(STUDENT, teaching="head")
    run(config, tmp_path / "stopped", [wide, wide], stop_at=3)
    whole, resumed = run(config, tmp_path / "whole", [wide, wide]), run(config, tmp_path / "stopped", [wide, wide])
    (state, _), (expected, _) = whole.load_latest(CPU), resumed.load_latest(CPU)
    assert {"parameters.teacher.1.conv3.weight", "optimizer.teacher.1.conv3.weight.exp_avg"} <= state.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state.keys() - {"recent_figures"})
    with pytest.raises(ValueError, match=r"--teacher is sha256:.* there"):
        run(config, tmp_path / "whole", [wide])


def test_nothing_of_the_teachers_is_left_in_the_bundle(wide: Path, tmp_path: Path) -> None:
    taught = load_bundle(run(replace(STUDENT, teaching="head"), tmp_path / "taught", [wide]).bundle)
    alone = load_bundle(run(STUDENT, tmp_path / "alone").bundle)
    assert taught.params.keys() == alone.params.keys()
    assert taught.manifest.learner == alone.manifest.learner
    assert taught.manifest.file_names == alone.manifest.file_names
    training = taught.manifest.provenance.training
    assert training["teacher"] == f"sha256:{read_manifest(wide / 'bundle').digest}"
    assert training["teaching"] == "head"
    assert str(wide) not in json.dumps(taught.manifest.to_json())


def test_classes_that_a_teacher_has_seen_are_not_tested_on(wide: Path, tmp_path: Path) -> None:
    source = load_source("digits")
    swapped = replace(source, train=source.test, test=source.train)  # the teacher was trained on these
    config = replace(STUDENT, validation_episodes=2)
    prepared = prepare(config, RunFolder(tmp_path / "run"), CPU, source=source, teachers=read_teachers([wide], CPU))
    assert prepared.left_out == []
    with pytest.raises(ValueError, match="of the 6 classes of the test split, 6 were trained on"):
        prepare(config, RunFolder(tmp_path / "run"), CPU, source=swapped, teachers=read_teachers([wide], CPU))


QUICK = ["--data", "digits", "--ways", 2, "--iterations", 2, "--queries", 3, "--backbone-set", "width=4"]


def test_the_commands_take_teachers(wide: Path, tmp_path: Path) -> None:
    options = [
        *QUICK,
        "--test-episodes",
        2,
        "--teacher",
        wide,
        "--teacher",
        wide / "bundle",
        "--teaching",
        "temperature",
    ]
    answer = innerloop("train", "--no-report", "maml", *options, "--validation-episodes", 2, "--out", tmp_path / "run")
    assert answer.status == 0, answer.error
    assert "teaching temperature" in answer.output
    compared = innerloop("compare", "--methods", "protonet,simclr", *options, "--out", tmp_path / "compared")
    assert compared.status == 0, compared.error
    assert "simclr is left out: simclr is not trained by answers to queries" in " ".join(compared.output.split())


@pytest.fixture(scope="module")
def misfits(tmp_path_factory: pytest.TempPathFactory, wide: Path) -> Path:
    """Bundles that can't teach on digits."""
    folder = tmp_path_factory.mktemp("misfits")
    write_bundle(folder / "other_inputs", replace(PROTOTYPES, input=InputSpec((1, 9, 9))))
    write_bundle(folder / "other_scale", PROTOTYPES)
    write_bundle(folder / "waves", REGRESSION)
    digits = load_source("digits").input
    write_bundle(folder / "two_ways", replace(POINTS, method="maml", input=digits, max_ways=2, settings=STEPS))
    damaged = folder / "damaged"
    damaged.mkdir()
    for file in (wide / "bundle").iterdir():
        (damaged / file.name).write_bytes(file.read_bytes()[:-1])
    return folder


IN_TURN = ("--set", "in_turn=true")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("other_inputs", [], "teacher other_inputs: this model takes inputs of 1x9x9 float32, digits has"),
        ("other_scale", [], "teacher other_scale: this model normalises inputs with"),
        ("waves", [], "teacher waves: it solves regression tasks; teachers answer with classes"),
        ("two_ways", ["--train-ways", 3], "teacher two_ways: this maml model takes at most 2 ways, not 3; choose"),
        ("damaged", [], "damaged: "),
        ("missing", [], "is neither a bundle nor a training run"),
        ("two_ways", ["--estimator", "es"], "the estimator es does not train protonet with --teaching plain"),
        ("two_ways", ["--teaching", "head", "--estimator", "backpropagation"], "choose --estimator pilot"),
        ("two_ways", ["--teaching", "body"], "unknown teaching 'body'; there are: head, plain, temperature"),
        ("two_ways", ["--set", "temperature=0"], "distillation: temperature must be at least 0.01, not 0"),
        ("two_ways", [*IN_TURN, "--teaching", "head", "--queries", 3], "take an even number of --queries, or leave"),
        ("two_ways", ["--data", "sinusoid"], "protonet does not solve regression tasks"),
        (None, ["--teaching", "head"], "--teaching head changes teachers; name one with --teacher"),
        (None, ["--estimator", "pilot"], "estimator pilot: it changes teachers; name one with --teacher"),
        (None, ["--set", "teacher_share=1"], "protonet has no setting 'teacher_share'"),
    ],
)  # fmt: skip
def test_what_can_not_teach_is_refused(
    name: str | None, options: list[object], message: str, misfits: Path, tmp_path: Path
) -> None:
    teacher_options = [] if name is None else ["--teacher", misfits / name]
    said = mistake("train", "protonet", *QUICK, *teacher_options, *options, "--out", tmp_path / "run")
    assert message in said
    assert not (tmp_path / "run").exists()


def test_learners_with_choices_are_taught_by_teachers_as_they_are_only(misfits: Path, tmp_path: Path) -> None:
    options = [*QUICK, "--teacher", misfits / "two_ways", "--out", tmp_path / "run"]
    said = mistake("train", "partial-maml", *options, "--teaching", "head")
    assert "teachers can't learn to teach partial-maml, whose choices no gradient reaches; leave --teaching out" in said
