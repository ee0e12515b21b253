"""Searches from start to end: what they leave, how they resume, what they refuse; and the gradients of darts."""

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import Case
from runs import CPU
from shell import innerloop, mistake

from innerloop_learner import Episodes, InputSpec, LearnerSpec, build_learner
from innerloop_learner.backbones import build_backbone
from innerloop_learner.bundle import load_bundle
from innerloop_learner.objectives import Stage, build_objective
from innerloop_learner.settings import SettingsError
from innerloop_trainer.config import TrainingConfig
from innerloop_trainer.data import EpisodeShape, load_source
from innerloop_trainer.outer_loop import build_estimator
from innerloop_trainer.outer_loop.estimators import darts
from innerloop_trainer.outer_loop.estimators.backpropagation import backpropagate
from innerloop_trainer.search import Search, SearchConfig, SearchError, SearchFolder, SearchReport, Tried, spaces
from innerloop_trainer.search.held_out import BesideHeldOut
from innerloop_trainer.search.searchers import searcher
from innerloop_trainer.search.searchers.mixture import LOGITS, OPERATIONS

TRAINING = TrainingConfig(
    "protonet", "digits", ways=2, queries=2, train_ways=2, iterations=2, validation_episodes=4, meta_batch=1
)
SOURCE = load_source("digits")
CONFIG = SearchConfig("evolution", "edges", TRAINING, trials=3, settings={"members": 2, "candidates": 1})
RANDOM = replace(CONFIG, searcher="random", settings={})
DARTS = SearchConfig("darts", "edges", TRAINING, trials=1, settings={"supernet_iterations": 2})


@pytest.fixture(name="few_draws")
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever finds nothing gives up soon."""
    monkeypatch.setattr(searcher, "MOST_DRAWS", 20)


def never() -> bool:
    return False


def run(
    config: SearchConfig,
    folder: Path,
    report: Callable[[SearchReport], None] = lambda _: None,
    interrupted: Callable[[], bool] = never,
    resume: bool = False,
) -> tuple[Search, bool]:
    search = Search(config, SOURCE, SearchFolder(folder), CPU, resume=resume)
    return search, search.run(report, interrupted)


def timeless(tried: list[Tried]) -> list[Tried]:
    return [replace(each, seconds=0.0) for each in tried]


def test_a_search_leaves_what_it_tried_and_the_best_of_it(tmp_path: Path) -> None:
    search, finished = run(CONFIG, tmp_path / "search")
    assert finished
    lines = [json.loads(line) for line in (tmp_path / "search/tried.jsonl").read_text().splitlines()]
    assert [line["trial"] for line in lines] == [1, 2, 3]
    best = json.loads((tmp_path / "search/best.json").read_text())
    assert best["accuracy"] == max(line["accuracy"] for line in lines)
    built = build_backbone(best["backbone"], SOURCE.input.shape, best["backbone_settings"])
    params = built.init(torch.Generator())
    assert sum(value.numel() for name, value in params.items() if "running" not in name) == best["parameters"]
    assert {file.name for file in (tmp_path / "search").iterdir()} == {"search.json", "tried.jsonl", "best.json"}
    assert search.best == search.tried[best["trial"] - 1]


@pytest.mark.parametrize("config", [CONFIG, DARTS], ids=["evolution", "darts"])
def test_a_search_that_is_stopped_anywhere_goes_on_to_the_bit(config: SearchConfig, tmp_path: Path) -> None:
    whole, _ = run(config, tmp_path / "whole")
    stops, finished, search = 0, False, whole
    while not finished:
        asked = 0

        def every_other_time() -> bool:
            nonlocal asked
            asked += 1
            return asked % 2 == 0

        search, finished = run(config, tmp_path / "stopped", interrupted=every_other_time, resume=stops > 0)
        stops += 1
    assert stops > 1
    assert timeless(search.tried) == timeless(whole.tried)
    assert search.best is not None


def test_a_finished_search_goes_on_with_more_trials(tmp_path: Path) -> None:
    larger = replace(CONFIG, trials=4)
    whole, _ = run(larger, tmp_path / "whole")
    run(CONFIG, tmp_path / "search")
    more, finished = run(larger, tmp_path / "search", resume=True)
    assert finished
    assert timeless(more.tried) == timeless(whole.tried)


def test_a_trial_that_a_crash_cut_short_is_finished_again(tmp_path: Path) -> None:
    whole, _ = run(CONFIG, tmp_path / "search")
    log = tmp_path / "search/tried.jsonl"
    log.write_text(log.read_text()[:-20])
    (tmp_path / "search/trial-3").mkdir()
    (tmp_path / "search/best.json").unlink()
    again, finished = run(CONFIG, tmp_path / "search", resume=True)
    assert finished
    assert timeless(again.tried) == timeless(whole.tried)
    assert (tmp_path / "search/best.json").is_file()


def test_training_that_diverges_is_recorded_and_not_chosen(tmp_path: Path) -> None:
    config = replace(
        RANDOM, trials=2, training=replace(TRAINING, learning_rate=1e30, method="maml", settings={"rate": 1e30})
    )
    search, finished = run(config, tmp_path / "search")
    assert finished
    assert all(each.failure and each.accuracy == 0 for each in search.tried)
    assert search.best is None


def test_reports_say_how_far_a_search_is(tmp_path: Path) -> None:
    reports: list[SearchReport] = []
    run(DARTS, tmp_path / "search", reports.append)
    assert {report.trial for report in reports if report.training is not None} == {0, 1}
    assert reports[-1].tried == reports[-1].best


def of_darts(method: str, **settings: Any) -> dict[str, Any]:
    """What makes a search by darts, in which a method is trained."""
    training = replace(TRAINING, method=method, settings=settings)
    return {"searcher": "darts", "trials": 1, "settings": {}, "training": training}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trials": 126}, "space edges has 125 architectures; lower --trials to that"),
        ({"trials": 2}, "evolution learns nothing in so few trials; raise --trials to 3 or more"),
        ({"most_multiply_adds": 10}, "none takes as little as 10 multiply-adds"),
        ({"space": "nowhere"}, "unknown space 'nowhere'; there are: blocks, edges, widths"),
        ({"searcher": "luck"}, "unknown searcher 'luck'; there are: darts, evolution, random, reinforce"),
        ({"training": replace(TRAINING, method="magic")}, "unknown method 'magic'"),
        ({"training": replace(TRAINING, settings={"steps": 3})}, "protonet has no setting 'steps'"),
        ({"settings": {"sample": 3}}, "searcher evolution has no setting 'sample'; it has: members, candidates"),
        (of_darts("baseline++"), "baseline++ learns to tell all training classes apart"),
        (of_darts("oml", trajectory=1), "oml learns to tell all training classes apart"),
        (of_darts("partial-maml"), "no gradient reaches the choices of partial-maml; search with evolution"),
    ],
)
@pytest.mark.usefixtures("few_draws")
def test_searches_that_can_not_be_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Search(replace(CONFIG, **change), SOURCE, SearchFolder(tmp_path / "search"), CPU)
    assert not (tmp_path / "search").exists()


def test_regression_is_refused(tmp_path: Path) -> None:
    config = replace(CONFIG, training=TrainingConfig("maml", "sinusoid"))
    with pytest.raises(SearchError, match="sinusoid has targets and no classes"):
        Search(config, load_source("sinusoid"), SearchFolder(tmp_path / "search"), CPU)


def test_a_folder_holds_one_search(tmp_path: Path) -> None:
    run(replace(RANDOM, trials=1), tmp_path / "search")
    with pytest.raises(SearchError, match="holds a search already; continue it with --resume"):
        SearchFolder(tmp_path / "search").check(resume=False)
    with pytest.raises(SearchError, match="holds no search; leave --resume out"):
        SearchFolder(tmp_path / "other").check(resume=True)
    with pytest.raises(SearchError, match="holds something else"):
        SearchFolder(tmp_path).check(resume=False)
    with pytest.raises(SearchError, match="of another configuration"):
        Search(CONFIG, SOURCE, SearchFolder(tmp_path / "search"), CPU, resume=True)


def test_the_printed_command_trains_what_was_found(tmp_path: Path) -> None:
    options = [
        *("--method", "protonet", "--data", "digits", "--space", "edges", "--out", tmp_path / "search", "--ways", 2),
        *("--queries", 2, "--train-ways", 2, "--iterations", 2, "--validation-episodes", 4, "--device", "cpu"),
    ]
    answer = innerloop("search", "random", *options, "--trials", 2)
    assert answer.status == 0
    assert "     1  " in answer.output
    _, _, command = answer.output.partition("Train it with:\n")
    program, *arguments = shlex.split(command)
    assert program == "innerloop"
    few = ("--iterations", 2, "--validation-episodes", 4, "--test-episodes", 4, "--device", "cpu")
    assert innerloop(*arguments, *few).status == 0
    bundle = load_bundle(tmp_path / "search/best/bundle")
    best = json.loads((tmp_path / "search/best.json").read_text())
    blocks = bundle.manifest.learner.backbone_settings["blocks"]
    assert [block["edges"] for block in blocks] == [
        block.get("edges", []) for block in best["backbone_settings"]["blocks"]
    ]
    assert "edges" in innerloop("inspect", tmp_path / "search/best").output
    assert "holds a search already" in mistake("search", "random", *options)


def mixture_case(blocks: list[dict[str, Any]]) -> Case:
    settings = {"blocks": blocks, "norm": "task"}
    return Case(
        LearnerSpec(
            "maml",
            InputSpec((1, 8, 8)),
            max_ways=3,
            backbone="cell-mixture",
            backbone_settings=settings,
            settings={"steps": 1, "rate": 0.05},
        )
    )


MIXTURE = mixture_case([{"width": 4, "downsample": "stride", "edges": ["none"] * 3}])


def test_a_mixture_of_one_operation_each_is_the_cell_of_these() -> None:
    edges = ["conv1x1", "mean3x3", "conv3x3"]
    params = MIXTURE.params()
    logits = torch.full((3, len(OPERATIONS)), -1e9, dtype=torch.float64)
    for row, operation in zip(logits, edges, strict=True):
        row[OPERATIONS.index(operation)] = 0.0
    params |= {LOGITS: logits, darts.AUXILIARY_SKIP: torch.zeros(1, dtype=torch.float64)}
    block = {"width": 4, "downsample": "stride", "edges": edges}
    cell = build_backbone("cell", (1, 8, 8), {"blocks": [block], "norm": "task"})
    names = {
        name: name.replace("to1", "to1.conv1x1").replace("1to2", "1to2.conv3x3")
        for name in cell.init(torch.Generator())
    }
    x = MIXTURE.episodes().support.x
    mixed, plain = (
        backbone.apply(given, x, torch.ones(x.shape[:2]).double()).values
        for backbone, given in (
            (MIXTURE.learner.backbone, params),
            (cell, {name: params[of] for name, of in names.items()}),
        )
    )
    torch.testing.assert_close(mixed, plain)


def test_inner_loops_leave_the_mixture_as_it_is() -> None:
    adapted = MIXTURE.learner.adapted(MIXTURE.params())  # type: ignore[attr-defined]
    assert "conv0.weight" in adapted
    assert LOGITS not in adapted
    assert not [name for name in adapted if name.startswith("norm_edge")]


def test_weights_follow_training_tasks_and_the_mixture_held_out_ones() -> None:
    params, episodes = MIXTURE.params(), MIXTURE.episodes(tasks=4)
    estimator = build_estimator("darts", MIXTURE.objective, {"auxiliary_skip": 0.8})
    found = estimator.estimate(params, {}, episodes, Stage(0.25))
    assert found.buffers[darts.AUXILIARY_SKIP].item() == pytest.approx(0.6)
    params[darts.AUXILIARY_SKIP] = torch.tensor([0.6], dtype=torch.float64)
    first, second = episodes.of_tasks(slice(2)), episodes.of_tasks(slice(2, None))
    expected = backpropagate(MIXTURE.objective, params, first, Stage(0.25))
    for name, gradient in expected.gradients.items():
        if name != LOGITS:
            torch.testing.assert_close(found.gradients[name], gradient)
    torch.testing.assert_close(found.loss, expected.loss)

    def held_out(step: float) -> float:
        moved = {**params, LOGITS: params[LOGITS] + step * direction}
        return MIXTURE.objective(moved, second, Stage(0.25)).loss.item()

    direction = torch.randn(params[LOGITS].shape, generator=torch.Generator().manual_seed(0)).double()
    slope = (held_out(1e-6) - held_out(-1e-6)) / 2e-6
    assert (found.gradients[LOGITS] * direction).sum().item() == pytest.approx(slope, rel=1e-6)


def test_darts_takes_what_it_can_learn_from() -> None:
    plain = build_objective(build_learner(LearnerSpec("protonet", InputSpec((1, 16, 16)))))
    with pytest.raises(SettingsError, match="this backbone mixes no operations"):
        build_estimator("darts", plain, {})
    with pytest.raises(ValueError, match="an even --meta-batch"):
        build_estimator("darts", MIXTURE.objective, {}).estimate(MIXTURE.params(), {}, MIXTURE.episodes(3), Stage())
    with pytest.raises(SettingsError, match="a mixture of operations needs cells of one size"):
        mixture_case([{"edges": ["none"]}, {"edges": ["none"] * 3}]).learner  # noqa: B018


def test_a_batch_holds_training_tasks_first_and_held_out_ones_behind() -> None:
    shape, split = EpisodeShape(2, 1, 2), BesideHeldOut(SOURCE.train, SOURCE.validation)
    drawn = split.sample(shape, 4, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    halves: list[Episodes] = [each.sample(shape, 2, generator) for each in (SOURCE.train, SOURCE.validation)]
    assert torch.equal(drawn.support.x, torch.cat([half.support.x for half in halves]))
    assert torch.equal(drawn.targets, torch.cat([half.targets for half in halves]))
    assert list(split.names) == list(SOURCE.train.names)
    assert spaces["edges"].one_cell
