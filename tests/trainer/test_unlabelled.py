"""Learning without labels: no label has any effect, and each image is a class of its own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from runs import CPU, DIGITS, SINUSOID
from shell import innerloop, mistake

from innerloop_learner.bundle import load_bundle
from innerloop_learner.settings import SettingsError
from innerloop_trainer.config import ConfigError, TrainingConfig
from innerloop_trainer.data import ClassExamples, DataError, DataSource, EpisodeShape, load_source, read_augmentations
from innerloop_trainer.plan import make_plan
from innerloop_trainer.runs.folder import RunFolder
from innerloop_trainer.runs.training import Training
from innerloop_trainer.seeds import generator_for

QUICK = replace(DIGITS, method="protonet", settings={}, train_ways=5, queries=2, iterations=3, validate_every=1)


def trained(config: TrainingConfig, source: DataSource, folder: Path) -> tuple[dict[str, torch.Tensor], str]:
    """The best parameters, and the log of the validations that chose them."""
    plan = make_plan(config, source, CPU)
    run = Training(plan, RunFolder(folder), CPU, plan.init(generator_for(0, "initialisation")))
    run.run(lambda _: None, lambda: False)
    figures = [row.split(",")[4:] for row in run.folder.log.read_text().splitlines()]  # without times
    return load_bundle(run.folder.bundle).params, str(figures)


def with_other_labels(source: DataSource) -> DataSource:
    """The same images in each split, dealt out to its classes at random."""

    def relabelled(split: object) -> ClassExamples:
        assert isinstance(split, ClassExamples)
        order = np.random.default_rng(0).permutation(int(sum(split._sizes)))
        return split.with_inputs(lambda data: replace(data, examples=data.examples[order]), source.input)

    return replace(source, train=relabelled(source.train), validation=relabelled(source.validation))


@pytest.mark.parametrize("method", ["protonet", "simclr"])
def test_other_labels_give_the_same_parameters_to_the_bit(method: str, tmp_path: Path) -> None:
    source, config = load_source("digits"), replace(QUICK, method=method, unlabelled=True)
    sources = (source, with_other_labels(source))
    (ours, log), (theirs, other_log) = (trained(config, each, tmp_path / f"{i}") for i, each in enumerate(sources))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert log == other_log
    if method == "protonet":  # labels that are used do have an effect
        labelled = replace(config, unlabelled=False)
        (ours, _), (theirs, _) = (trained(labelled, each, tmp_path / f"l{i}") for i, each in enumerate(sources))
        assert not all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_queries_are_augmentations_of_the_image_whose_label_they_have() -> None:
    split, shape = load_source("digits").train, EpisodeShape(ways=6, shots=2, queries=3)
    plain, changed = (split.without_labels(read_augmentations(text)) for text in ("none", "shift?distance=0.01"))
    for sampler in (plain, changed):
        episodes = sampler.sample(shape, 4, torch.Generator().manual_seed(0))
        support, query = episodes.support, episodes.query
        assert len(support.x.flatten(2)[0].unique(dim=0)) == (6 if sampler is plain else 12)
        alike = torch.cdist(query.x.flatten(2), support.x.flatten(2)).argmin(-1)
        assert torch.equal(support.y.gather(1, alike), episodes.targets)
        assert torch.equal(torch.cdist(query.x.flatten(2), support.x.flatten(2)).amin(-1) == 0, query.mask) == (
            sampler is plain
        )
        first = [support.y[:, :place].amax(1) if place else torch.full((4,), -1) for place in range(12)]
        assert all((support.y[:, place] <= first[place] + 1).all() for place in range(12))  # numbered as they appear
    again = changed.sample(shape, 4, torch.Generator().manual_seed(0))
    assert torch.equal(again.query.x, query.x)


def test_training_images_are_augmented_where_it_is_asked_for_and_others_are_not() -> None:
    source, shape = load_source("digits"), EpisodeShape(2, 1, 3)
    plan = make_plan(replace(DIGITS, augment="affine"), source, CPU)
    pairs = [(each.train, each.validation) for each in (source, plan.source)]
    (train, validation), (augmented, same) = (
        [split.sample(shape, 2, torch.Generator().manual_seed(0)) for split in pair] for pair in pairs
    )
    assert torch.equal(validation.query.x, same.query.x)
    for before, after in ((train.support, augmented.support), (train.query, augmented.query)):
        assert before.x.shape == after.x.shape
        assert not torch.equal(before.x, after.x)
    assert torch.equal(train.targets, augmented.targets)


def folder_of_images(path: Path, count: int) -> Path:
    path.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (count, 16, 16), dtype=np.uint8)
    for number, each in enumerate(pixels):
        Image.fromarray(each).save(path / f"{number}.png")
    return path


def test_simclr_learns_from_a_folder_of_images_and_others_start_from_it(tmp_path: Path) -> None:
    source = f"images:{folder_of_images(tmp_path / 'pictures', 30)}?size=16"
    quick = ["--iterations", "2", "--validate-every", "2", "--validation-episodes", "2", "--test-episodes", "2",
             "--backbone-set", "width=4"]  # fmt: skip
    answer = innerloop(
        "train", "simclr", "--data", source, "--ways", "4", "--train-ways", "8", *quick, "--out", tmp_path / "run"
    )
    assert answer.status == 0, answer.output
    assert "unlabelled test episodes" in " ".join(answer.output.split())
    start = ["--init", tmp_path / "run", "--learning-rate", "1e-30", "--ways", "2", "--meta-batch", "1"]
    assert innerloop("train", "maml", "--data", "digits", *quick, *start, "--out", tmp_path / "next").status == 0
    before, after = (load_bundle(tmp_path / run / "bundle").params for run in ("run", "next"))
    assert torch.equal(before["conv3.weight"], after["conv3.weight"])
    labelled = mistake("train", "protonet", "--data", source, *quick, "--out", tmp_path / "labelled")
    assert "has no labels" in labelled
    assert "--unlabelled" in labelled
    assert "has no labels" in mistake("evaluate", tmp_path / "run", "--data", source, "--split", "all")


@pytest.mark.parametrize(
    ("config", "error", "match"),
    [
        (replace(SINUSOID, unlabelled=True), ConfigError, "gives no images"),
        (replace(SINUSOID, augment="affine"), ConfigError, "gives no images"),
        (replace(DIGITS, augment="blur"), DataError, "unknown augmentation 'blur'; there are: affine"),
        (replace(DIGITS, augment="affine?angle=3"), DataError, "no setting 'angle'; it has: rotation, scale"),
        (replace(DIGITS, augment="affine?scale=big"), DataError, "scale must be a number, not 'big'"),
        (replace(DIGITS, method="baseline", settings={}, unlabelled=True), SettingsError, "the data names none"),
        (replace(QUICK, unlabelled=True, shots=5, wrong_labels=0.2), DataError, "leave --wrong-labels out"),
        (replace(QUICK, unlabelled=True, train_ways=5000), DataError, "too few for 5000 ways without labels"),
    ],
)
def test_what_can_not_be_done_is_refused(config: TrainingConfig, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make_plan(config, load_source(config.data), CPU)
