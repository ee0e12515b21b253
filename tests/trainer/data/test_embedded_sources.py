import math

import numpy as np
import pytest
import torch
from torch import Tensor

from innerloop_trainer.data import DataError, EpisodeShape, load_source
from innerloop_trainer.data import glyphs as glyphs_module
from innerloop_trainer.data.glyph_shapes import GlyphShapes, distinct_characters


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def glyphs() -> list[GlyphShapes]:
    return distinct_characters()


def test_glyph_classes_are_several_hundred_characters_of_many_scripts(glyphs: list[GlyphShapes]) -> None:
    characters = [glyph.character for glyph in glyphs]
    assert len(set(characters)) == len(characters) > 600
    assert set("A7ΞЖ€→∞♞") <= set(characters)


def test_no_two_glyph_classes_look_alike(glyphs: list[GlyphShapes]) -> None:
    characters = {glyph.character for glyph in glyphs}
    for alike in ("A\u0391\u0410", "Cc\u0421\u0441", "oO0\u039f\u041e", "-\u2013\u2014", "Il|\u0406"):
        assert len(characters & set(alike)) <= 1, alike


def test_every_glyph_shape_has_ink_and_none_is_the_box_for_missing_characters(glyphs: list[GlyphShapes]) -> None:
    shapes = [glyph.shapes for glyph in glyphs]
    assert all((shape.max(axis=(1, 2)) > 128).all() for shape in shapes)
    first = {shape[0].tobytes() for shape in shapes}
    assert len(first) == len(shapes)  # a font answers every character that it lacks with one and the same box


def test_glyph_drawings_are_the_same_every_time_and_all_differ(
    glyphs: list[GlyphShapes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(glyphs_module, "distinct_characters", lambda: glyphs[:12])
    first, second = glyphs_module.draw_glyphs(), glyphs_module.draw_glyphs()
    np.testing.assert_array_equal(first.examples, second.examples)
    assert first.examples.shape == (12 * 20, 1, 28, 28)
    assert len({image.tobytes() for image in first.examples}) == 12 * 20
    assert (first.examples.min(axis=(1, 2, 3)) < 128).all()  # dark ink
    assert np.median(first.examples) == 255  # on white paper


def test_glyph_splits_share_no_class_and_give_twenty_examples(
    glyphs: list[GlyphShapes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(glyphs_module, "distinct_characters", lambda: glyphs[:40])
    source = load_source("glyphs")
    parts = [set(part.names) for part in (source.train, source.validation, source.test)]
    assert [len(part) for part in parts] == [26, 6, 8]
    assert len(set().union(*parts)) == 40
    source.test.check(EpisodeShape(5, 5, 15))
    assert source.train.sample(EpisodeShape(5, 1, 3), 2, seeded(0)).support.x.shape == (2, 5, 1, 28, 28)


def test_digits_have_two_ways_for_validation_and_test_and_keep_their_pixels() -> None:
    source = load_source("digits")
    assert [len(part.names) for part in (source.train, source.validation, source.test)] == [6, 2, 2]
    episodes = source.test.sample(EpisodeShape(2, 5, 15), 3, seeded(0))
    assert episodes.support.x.shape == (3, 10, 1, 8, 8)
    assert episodes.support.x.max() == 1
    assert episodes.support.x.min() == 0
    with pytest.raises(DataError, match="digits, test split has 2 classes, too few for 5 ways; lower --ways to 2"):
        source.test.check(EpisodeShape(5, 1, 1))


def _residual(x: Tensor, y: Tensor) -> Tensor:
    """What is left of each task's y after the best fit by a sine of any amplitude and phase."""
    basis = torch.cat([torch.sin(x), torch.cos(x)], dim=-1).double()
    fit = torch.linalg.lstsq(basis, y.double()).solution
    return (basis @ fit - y).abs().max()


def test_sinusoid_tasks_are_sine_waves_of_the_published_ranges_and_support_and_query_share_one() -> None:
    sampler = load_source("sinusoid").train
    episodes = sampler.sample(EpisodeShape(0, 10, 30), 500, seeded(0))
    assert episodes.support.x.shape == (500, 10, 1)
    assert episodes.support.y.shape == (500, 10, 1)
    assert episodes.targets.shape == (500, 30, 1)
    assert episodes.support.max_ways == 0
    assert episodes.support.ways.tolist() == [0] * 500
    x = torch.cat([episodes.support.x, episodes.query.x], dim=1)
    y = torch.cat([episodes.support.y, episodes.targets], dim=1)
    assert _residual(x, y) < 1e-4
    assert -5 <= x.min() < -4.9
    assert 4.9 < x.max() <= 5
    weights = torch.linalg.lstsq(torch.cat([torch.sin(x), torch.cos(x)], dim=-1), y).solution.squeeze(-1)  # [T, 2]
    amplitude, phase = weights.norm(dim=1), torch.atan2(-weights[:, 1], weights[:, 0])
    assert 0.099 < amplitude.min() < 0.3
    assert 4.8 < amplitude.max() < 5.001
    assert -0.001 < phase.min() < 0.1
    assert math.pi - 0.1 < phase.max() < math.pi + 0.001


def test_sinusoid_splits_draw_different_tasks_from_equal_seeds_and_each_the_same_again() -> None:
    source, shape = load_source("sinusoid"), EpisodeShape(0, 5, 5)
    drawn = [part.sample(shape, 4, seeded(3)).support.x for part in (source.train, source.validation, source.test)]
    assert torch.equal(drawn[0], load_source("sinusoid").train.sample(shape, 4, seeded(3)).support.x)
    assert len({x.numpy().tobytes() for x in drawn}) == 3


def test_sinusoid_without_points_is_refused() -> None:
    with pytest.raises(DataError, match="--shots 0 --queries 5 won't do; both must be at least 1"):
        load_source("sinusoid").train.check(EpisodeShape(0, 0, 5))
