"""Augmentations are pure, seeded, and change each image by itself, by as much as their strengths say."""

from dataclasses import fields

import pytest
import torch
from torch import Tensor

from innerloop_learner.augmentations import (
    Augment,
    Augmentation,
    GeneratedNumbers,
    augmentations,
    build_augmentation,
)
from innerloop_learner.augmentations.augmentation import occurrence
from innerloop_learner.tasks import Params

each = pytest.mark.parametrize("name", list(augmentations))


def images(count: int = 4, channels: int = 3) -> Tensor:
    """Smooth images, so that finite differences are close to derivatives [N, C, 10, 12]."""
    coarse = torch.rand(count, channels, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return torch.nn.functional.interpolate(coarse, (10, 12), mode="bilinear")


def noise_of(part: Augmentation, count: int = 4) -> Params:
    drawn = part.draw(GeneratedNumbers(count, torch.Generator().manual_seed(0)))
    return {name: value.double() for name, value in drawn.items()}


@each
def test_without_strength_nothing_changes_and_with_the_usual_ones_something_does(name: str) -> None:
    usual = build_augmentation(name, {})
    none = build_augmentation(name, dict.fromkeys(usual.strengths, 0.0))
    x, noise = images(), noise_of(usual)
    assert torch.allclose(none.apply(x, noise), x, atol=1e-12)
    assert not torch.allclose(usual.apply(x, noise), x, atol=1e-2)


@each
def test_each_image_is_changed_by_itself(name: str) -> None:
    part, x = build_augmentation(name, {}), images()
    noise = noise_of(part)
    alone = [
        part.apply(x[row : row + 1], {key: value[row : row + 1] for key, value in noise.items()}) for row in range(4)
    ]
    assert torch.allclose(part.apply(x, noise), torch.cat(alone), atol=1e-12)


@each
def test_the_gradient_by_a_strength_equals_finite_differences(name: str) -> None:
    kind, x = augmentations[name], images()
    usual = vars(kind.strengths_class())
    noise, weights = noise_of(kind(usual)), torch.rand(x.shape, dtype=torch.float64)
    for strength in {field.name for field in fields(kind.strengths_class)} - kind.never_learned:

        def value(at: Tensor, strength: str = strength) -> Tensor:
            return (kind({**usual, strength: at}).apply(x, noise) * weights).sum()

        at = torch.tensor(usual[strength], dtype=torch.float64, requires_grad=True)
        (exact,) = torch.autograd.grad(value(at), at)
        with torch.no_grad():
            measured = (value(at + 1e-7) - value(at - 1e-7)) / 2e-7
        assert exact.item() == pytest.approx(measured.item(), rel=1e-4, abs=1e-6)
        assert exact != 0


def test_equal_generators_change_images_of_a_batch_of_tasks_equally_and_others_do_not() -> None:
    augment = Augment([build_augmentation(name, {}) for name in augmentations])
    x = images(6).float().view(2, 3, 3, 10, 12)
    first, again, other = (augment(x, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == x.shape


def test_warps_in_a_row_are_one_interpolation_of_the_same_order() -> None:
    shift, affine = build_augmentation("shift", {"distance": 0.5}), build_augmentation("affine", {"rotation": 180.0})
    moves = {"shift": torch.tensor([[0.5, 0.0]])}  # by a quarter of the width
    turns = {"rotation": torch.ones(1), "scale": torch.zeros(1), "shear": torch.zeros(1)}
    shift.draw, affine.draw = (lambda *_: moves), (lambda *_: turns)  # type: ignore[method-assign]
    x = torch.rand(1, 1, 8, 8)
    together = Augment([shift, affine])(x, torch.Generator())
    assert torch.allclose(together, affine.apply(shift.apply(x, moves), turns), atol=1e-5)
    shifted = torch.cat([x[..., 2:], x[..., -1:].expand(-1, -1, -1, 2)], -1)
    assert torch.allclose(together, shifted.flip(2, 3), atol=1e-5)


def test_a_stroke_of_full_strength_is_a_pixel_wider_or_narrower() -> None:
    stroke = build_augmentation("stroke", {"width": 1.0})
    wide, narrow = torch.zeros(2, 1, 9, 9).unbind()
    wide[:, 2:7, 2:7], narrow[:, 3:6, 3:6] = 1, 1
    assert torch.equal(stroke.apply(narrow[None], {"change": torch.ones(1)}), wide[None])
    assert torch.equal(stroke.apply(wide[None], {"change": -torch.ones(1)}), narrow[None])


def test_an_erased_rectangle_has_its_area_wherever_its_edges_lie() -> None:
    erasing, x = build_augmentation("erasing", {"probability": 1.0, "area": 0.3}), torch.ones(50, 1, 10, 12)
    noise = {name: value.float() for name, value in noise_of(erasing, 50).items()}
    lost = 1 - erasing.apply(x, noise).mean((1, 2, 3))
    whole = noise["area"] < 0.9  # of larger ones, long rectangles may be cut to the image's size
    torch.testing.assert_close(lost[whole], 0.3 * noise["area"][whole], atol=1e-5, rtol=1e-5)


def test_what_happens_with_a_learned_probability_mostly_happens_or_not_and_as_often_as_a_fixed_one() -> None:
    chance = (torch.arange(1000) + 0.5) / 1000
    hard, soft = occurrence(chance, 0.3), occurrence(chance, torch.tensor(0.3))
    assert torch.equal(hard, (soft > 0.5).float())
    assert soft.mean().item() == pytest.approx(0.3, abs=0.02)
    assert ((soft - hard).abs() < 0.05).float().mean() > 0.7


@pytest.mark.parametrize("edge", [0.0, 1.0])
def test_a_learned_probability_at_its_edge_has_a_finite_gradient(edge: float) -> None:
    probability = torch.tensor(edge, requires_grad=True)
    happens = occurrence(torch.rand(20, generator=torch.Generator().manual_seed(0)), probability)
    assert (happens - edge).abs().max() < 0.05
    (gradient,) = torch.autograd.grad(happens.sum(), probability)
    assert gradient.isfinite()
