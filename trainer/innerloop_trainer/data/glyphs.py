"""`glyphs`: embedded, characters of the fonts that matplotlib ships, distorted as a hand would."""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from innerloop_learner.spec import InputSpec
from innerloop_trainer.data.cache import cached
from innerloop_trainer.data.class_digests import digest_arrays
from innerloop_trainer.data.class_examples import source_of_classes
from innerloop_trainer.data.class_split import shuffled
from innerloop_trainer.data.example_set import ExampleSet
from innerloop_trainer.data.glyph_shapes import GlyphShapes, distinct_characters
from innerloop_trainer.data.options import one_of, option, read_options, reject_path, write_options
from innerloop_trainer.data.source import DataSource, SourceLoader, SourceRequest, sources

SEED = 2017
EXAMPLES = 20
AT_ONCE = 32
INPUT = InputSpec(shape=(1, 28, 28), dtype="uint8", mean=(1.0,), std=(-1.0,), scale=1 / 255)
"""Dark ink on white paper, as in Omniglot: normalised, paper is 0 and ink is 1."""

# Raise the version when a distortion or the choice of characters changes, or old cached copies go on being used.
VERSION = 1
ROTATION = math.radians(15)
SCALE = 0.2
STRETCH = 0.15
SHEAR = 0.3
SHIFT = 0.12
WOBBLE = 0.06


FONTS: Mapping[str, Sequence[str]] = {
    "train": ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Bold"),
    "validation": ("DejaVuSansMono", "DejaVuSansMono-Bold"),
    "test": ("STIXGeneral", "STIXGeneralBol"),
}
"""Fonts of each split if fonts are domains."""


@dataclass(frozen=True)
class GlyphOptions:
    """Options of the glyphs source."""

    domains: str = option(
        "none",
        one_of("none", "font"),
        "Font: the characters of each episode are printed in one font, and those of validation and test in others than "
        "those of training.",
    )


class Glyphs(SourceLoader):
    """The glyphs source."""

    summary = "printed characters of many scripts, distorted; built in"
    example = "glyphs"
    options = GlyphOptions

    def load(self, request: SourceRequest) -> DataSource:
        """As in `SourceLoader`."""
        reject_path(request)
        options = read_options(request, GlyphOptions)
        by_font = options.domains == "font"
        identity = {"version": VERSION, "fonts": mpl.__version__, "unicode": unicodedata.unidata_version}
        images = cached("glyphs", identity, draw_glyphs)
        characters = shuffled(images.names, SEED)
        first, second = round(0.65 * len(characters)), round(0.8 * len(characters))
        parts = {
            "train": characters[:first],
            "validation": characters[first:second],
            "test": characters[second:],
        }
        if by_font:
            images = cached("glyph-fonts", identity, lambda: draw_by_font(parts))
        how = ", in each of the fonts of its split" if by_font else ""
        splits = {split: _split(images, split, names, by_font=by_font) for split, names in parts.items()}
        return source_of_classes(
            "glyphs",
            f"Printed characters, {EXAMPLES} distorted drawings each (fixed seed {SEED}): {first} for training, "
            f"{second - first} for validation, {len(characters) - second} for test{how}",
            INPUT,
            request.device,
            train=splits["train"],
            validation=splits["validation"],
            test=splits["test"],
            options=write_options(options),
        )


def _split(images: ExampleSet, split: str, characters: Sequence[str], *, by_font: bool) -> ExampleSet:
    """The classes of a split: its characters, or where fonts are domains its characters in its fonts."""
    if not by_font:
        return images.select(characters)
    own = {f"{character} in {font}": font for font in FONTS[split] for character in characters}
    there = [name for name in images.names if name in own]
    return replace(images.select(there), domains=tuple(own[name] for name in there))


def draw_glyphs() -> ExampleSet:
    """All classes, generated; always the same."""
    glyphs = distinct_characters()
    return _drawn(glyphs, [glyph.character for glyph in glyphs])


def draw_by_font(parts: Mapping[str, Sequence[str]]) -> ExampleSet:
    """The characters of each split in each font of that split that has them, generated; always the same."""
    split_of = {character: split for split, characters in parts.items() for character in characters}
    printed = [
        glyph.in_font(font)
        for glyph in distinct_characters()
        for font in FONTS[split_of[glyph.character]]
        if font in glyph.fonts
    ]
    return _drawn(printed, [f"{glyph.character} in {glyph.fonts[0]}" for glyph in printed])


def _drawn(glyphs: Sequence[GlyphShapes], names: Sequence[str]) -> ExampleSet:
    """Each glyph as a class of this name, drawn."""
    generator = torch.Generator().manual_seed(SEED)
    parts = [glyphs[start : start + AT_ONCE] for start in range(0, len(glyphs), AT_ONCE)]
    images = np.concatenate([_distorted(part, generator) for part in parts])
    counts = np.full(len(glyphs), EXAMPLES, dtype=np.int64)
    return ExampleSet(tuple(names), counts, images, digest_arrays(counts, images))


def _distorted(glyphs: Sequence[GlyphShapes], generator: torch.Generator) -> NDArray[np.uint8]:
    """EXAMPLES drawings of each character [N * EXAMPLES, 1, 28, 28], its fonts taken in turn."""
    turns = [glyph.shapes[np.arange(EXAMPLES) % len(glyph.shapes), None] for glyph in glyphs]
    ink = torch.from_numpy(np.concatenate(turns)).float()  # [N * EXAMPLES, 1, CANVAS, CANVAS]
    grid = F.affine_grid(_affine(len(ink), generator), list(ink.shape), align_corners=False)
    bent = F.grid_sample(ink, grid + _wobble(len(ink), ink.shape[-1], generator), align_corners=False)
    height, width = INPUT.shape[1:]
    paper = 255 - F.adaptive_avg_pool2d(bent, (height, width))
    return paper.round().clamp(0, 255).to(torch.uint8).numpy()


def _affine(count: int, generator: torch.Generator) -> Tensor:
    """Random rotations, scales, stretches, shears and shifts [N, 2, 3], from the drawing to the original."""

    def within(limit: float) -> Tensor:
        return limit * (2 * torch.rand(count, generator=generator) - 1)

    angle, shear = within(ROTATION), within(SHEAR)
    scale, stretch = within(SCALE), within(STRETCH)
    across, down = torch.exp(scale + stretch), torch.exp(scale - stretch)
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = [
        torch.stack([across * cos, across * (shear * cos - sin), within(SHIFT)], dim=1),
        torch.stack([down * sin, down * (shear * sin + cos), within(SHIFT)], dim=1),
    ]
    return torch.stack(rows, dim=1)


def _wobble(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Smooth random displacements [N, size, size, 2]: a coarse field, interpolated."""
    coarse = WOBBLE * torch.randn(count, 2, 4, 4, generator=generator)
    fine = F.interpolate(coarse, (size, size), mode="bicubic", align_corners=True)
    return fine.permute(0, 2, 3, 1)


sources.register("glyphs")(Glyphs())
